"""What comes with a question beside what matches it: neighbours, times, speakers, diversity."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memory import Aeon, Recollection
from memory.cerebellum import Cerebellum
from tests.memory.parts import ALICE, aeon, episode, unit_vectors, vector_of, words

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Aeon]:
    made = aeon(tmp_path)
    yield made
    made.close()


def near(vector: NDArray[np.float32], cosine: float, seed: int = 7) -> NDArray[np.float32]:
    """A unit vector at this cosine to ``vector``."""
    other = unit_vectors(1, seed=seed)[0]
    other -= (other @ vector) * vector
    other /= np.linalg.norm(other)
    made: NDArray[np.float32] = cosine * vector + np.sqrt(1 - cosine**2) * other
    return made


def recall(memory: Aeon, question: str, limit: int = 6) -> Recollection:
    return memory.recall(
        ALICE,
        question,
        vector_of(question),
        budget_tokens=500,
        count_tokens=words,
        limit=limit,
        now=NOW,
    )


def test_the_turn_beside_a_hit_comes_with_it(memory: Aeon) -> None:
    question = "Which shelter was it?"
    memory.write(episode("Guess where I went!", turn=1), near(vector_of(question), 0.6))
    memory.write(episode("To the one in Lyon.", turn=2), near(vector_of(question), 0.25, seed=8))
    memory.write(episode("See you.", turn=3), near(vector_of(question), 0.25, seed=9))
    assert memory.drain(10)
    found = {one.episode.turn: one.reasons for one in recall(memory, question).episodes}
    assert set(found) == {1, 2}
    assert "neighbour" in found[2]
    assert "neighbour" not in found[1]


def test_a_named_time_prefers_what_was_said_then(memory: Aeon) -> None:
    question = "What did I cook last week?"
    for days, text in ((400, "I made a stew."), (9, "I made a pie."), (1, "I made rice.")):
        vector = near(vector_of(question), 0.5, seed=days)
        said = episode(text, conversation=text, created=NOW - timedelta(days=days))
        memory.write(said, vector)
    assert memory.drain(10)
    first = recall(memory, question).episodes[0]
    assert first.episode.user_text == "I made a pie."
    assert "time 1.00" in first.reasons


def test_what_was_said_in_the_time_is_found_without_a_word_in_common(memory: Aeon) -> None:
    question = "What was on my mind on 3 May 2024?"
    memory.write(
        episode("Boats.", created=datetime(2024, 5, 3, 8, tzinfo=UTC)),
        near(vector_of(question), 0.22),
    )
    for number in range(60):
        vector = near(vector_of(question), 0.3, seed=number + 20)
        memory.write(episode("Another thought.", conversation=f"c{number}"), vector)
    assert memory.drain(10)
    assert recall(memory, question).episodes[0].episode.user_text == "Boats."


def test_who_speaks_in_a_transcript_counts(memory: Aeon) -> None:
    question = "What does Nora like?"
    for number, text in enumerate(("Paul: tea is fine.", "Nora (8 May): coffee, please.")):
        vector = near(vector_of(question), 0.5 - 0.05 * number, seed=number)
        memory.write(episode(text, conversation=text), vector)
    assert memory.drain(10)
    first = recall(memory, question).episodes[0]
    assert first.episode.user_text.startswith("Nora")
    assert "said by nora" in first.reasons


def test_the_block_tells_what_was_said_first_before_what_came_later(memory: Aeon) -> None:
    question = "Where is my desk?"
    later = episode("It moved to the attic.", conversation="a", created=NOW)
    first = episode("It is in the cellar.", conversation="b", created=NOW - timedelta(days=3))
    memory.write(later, near(vector_of(question), 0.8))
    memory.write(first, near(vector_of(question), 0.6, seed=8))
    block = recall(memory, question).block
    assert block.index("cellar") < block.index("attic")


def test_of_like_notes_another_one_comes_in_between(memory: Aeon) -> None:
    question = "What do I grow?"
    tomato = near(vector_of(question), 0.6)
    memory.write(episode("Tomatoes.", conversation="a"), tomato)
    memory.write(episode("Only tomatoes.", conversation="b"), near(tomato, 0.95, seed=8))
    memory.write(episode("And beans.", conversation="c"), near(vector_of(question), 0.55, seed=9))
    said = [one.episode.user_text for one in recall(memory, question).episodes]
    assert said.index("And beans.") == 1


def test_a_search_gives_as_many_as_are_wanted_however_little_they_fit(memory: Aeon) -> None:
    for number in range(5):
        text = f"Note {number}"
        memory.write(episode(text, conversation=text), vector_of(text))
    assert memory.drain(10)
    found = memory.search(ALICE, "Something else", vector_of("Something else"), limit=3)
    assert len(found) == 3
    assert recall(memory, "Something else").episodes == ()


def test_an_episode_whose_facts_were_superseded_is_not_recalled(tmp_path: Path) -> None:
    memory = Aeon(
        tmp_path,
        embedding_id="seeded",
        embed=lambda texts: np.stack([vector_of("home")] * len(texts)),
        cerebellum=Cerebellum(),
    )
    memory.open()
    try:
        for number, text in enumerate(("I live in Lyon.", "I moved: I live in Nantes now.")):
            memory.write(
                episode(text, "", conversation=f"c{number}"), near(vector_of("home"), 0.9, number)
            )
            assert memory.knowledge.drain(20)
        assert memory.drain(20)
        found = memory.recall(
            ALICE, "Where do I live?", vector_of("home"), budget_tokens=300, count_tokens=words
        )
        assert [one.episode.user_text for one in found.episodes] == [
            "I moved: I live in Nantes now."
        ]
    finally:
        memory.close()
