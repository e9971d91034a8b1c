"""The memory as a whole: what is written is recalled, by its owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kiki.errors import StoreError, StoreUnavailableError
from memory import Aeon, IdempotentReply, Owner, Recollection
from tests.memory.parts import ALICE, aeon, episode, vector_of, words


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Aeon]:
    made = aeon(tmp_path / "memory")
    yield made
    made.close()


def recall(memory: Aeon, text: str, owner: Owner = ALICE, budget: int = 500) -> Recollection:
    return memory.recall(
        owner, text, vector_of(text), budget_tokens=budget, count_tokens=words, conversation="c1"
    )


def test_a_written_episode_is_recalled_at_once_and_after_projection(memory: Aeon) -> None:
    one = episode("My dog is called Rex.", "A fine name.")
    assert memory.write(one, vector_of(one.user_text))
    for _ in range(2):
        found = recall(memory, one.user_text)
        assert [hit.episode for hit in found.episodes] == [one]
        assert "My dog is called Rex." in found.block
        assert found.tokens == words(found.block)
        assert memory.drain(20)


def test_a_hit_says_why_it_came(memory: Aeon) -> None:
    one = episode("My dog is called Rex.")
    memory.write(one, vector_of(one.user_text))
    assert memory.drain(20)
    reasons = recall(memory, one.user_text).episodes[0].reasons
    assert reasons[0] == "vector 1.00"
    assert any(reason.startswith("text ") for reason in reasons)
    assert "mentions rex" in reasons
    assert "same conversation" in reasons


def test_another_users_memory_is_not_recalled(memory: Aeon) -> None:
    one = episode("My dog is called Rex.")
    memory.write(one, vector_of(one.user_text))
    for owner in (Owner("acme", "bob"), Owner("other", "alice")):
        assert recall(memory, one.user_text, owner) == Recollection()
        assert memory.drain(20)
        assert recall(memory, one.user_text, owner) == Recollection()


def test_an_unrelated_question_recalls_nothing(memory: Aeon) -> None:
    one = episode("My dog is called Rex.")
    memory.write(one, vector_of(one.user_text))
    assert memory.drain(20)
    assert recall(memory, "Wie spät ist es?") == Recollection()


def test_excluded_episodes_stay_out(memory: Aeon) -> None:
    one = episode("My dog is called Rex.")
    memory.write(one, vector_of(one.user_text))
    for _ in range(2):
        found = memory.recall(
            ALICE,
            one.user_text,
            vector_of(one.user_text),
            budget_tokens=500,
            count_tokens=words,
            exclude_ids=[one.id],
        )
        assert found == Recollection()
        assert memory.drain(20)


def test_of_episodes_that_say_the_same_the_newest_is_recalled(memory: Aeon) -> None:
    old = episode("My dog is called Rex.", "Nice.")
    new = episode("My dog is called Rex.", "As you said.")
    for one in (old, new):
        memory.write(one, vector_of(one.user_text))
    assert memory.drain(20)
    assert [hit.episode for hit in recall(memory, "My dog is called Rex.").episodes] == [new]


def test_the_token_budget_is_kept(memory: Aeon) -> None:
    one = episode("My dog is called Rex. " + "He barks. " * 20)
    memory.write(one, vector_of(one.user_text))
    assert recall(memory, one.user_text, budget=20) == Recollection()
    assert 20 < recall(memory, one.user_text, budget=200).tokens <= 200


def test_an_episode_without_a_vector_is_embedded_by_the_projector(memory: Aeon) -> None:
    one = episode("My dog is called Rex.")
    memory.write(one, None)
    assert memory.drain(20)
    assert recall(memory, one.user_text).episodes[0].episode == one


def test_a_reply_is_found_by_its_key_and_owner(memory: Aeon) -> None:
    reply = IdempotentReply("key", "fingerprint", '{"answer": 1}')
    one = episode()
    assert memory.write(one, vector_of("hello"), reply)
    assert memory.find_reply(ALICE, "key") == reply
    assert memory.find_reply(Owner("acme", "bob"), "key") is None
    assert memory.find_reply(ALICE, "other") is None


def test_turns_of_a_conversation_are_listed_in_order(memory: Aeon) -> None:
    assert memory.last_turn(ALICE, "c9") == -1
    turns = [episode(conversation="c9", turn=turn) for turn in (2, 0, 1)]
    for one in turns:
        memory.write(one, None)
    assert [one.turn for one in memory.episodes(ALICE, "c9")] == [0, 1, 2]
    assert memory.last_turn(ALICE, "c9") == 2
    assert memory.episodes(Owner("acme", "bob"), "c9") == []


def test_a_memory_reopened_goes_on(tmp_path: Path) -> None:
    one = episode("My dog is called Rex.")
    first = aeon(tmp_path)
    first.write(one, vector_of(one.user_text))
    assert first.drain(20)
    first.close()
    second = aeon(tmp_path)
    assert second.status().lag == 0
    assert recall(second, one.user_text).episodes[0].episode == one
    second.close()


def test_rebuild_makes_both_stores_from_the_journal_and_embeds_anew(tmp_path: Path) -> None:
    one = episode("My dog is called Rex.")
    first = aeon(tmp_path, embedding_id="another model")
    first.write(one, -vector_of(one.user_text))
    assert first.drain(20)
    first.close()

    second = aeon(tmp_path)
    status = second.status()
    assert status.state == "degraded"
    assert "another model" in str(status.last_error)
    assert "seeded" in str(status.last_error)
    assert "kiki memory rebuild" in str(status.last_error)
    with pytest.raises(StoreUnavailableError):
        recall(second, one.user_text)
    with pytest.raises(StoreError, match="open"):
        second.rebuild(lambda done, total: None)
    second.close()

    seen: list[tuple[int, int]] = []
    second.rebuild(lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    second.open()
    assert second.status().state == "ok"
    assert recall(second, one.user_text).episodes[0].episode == one
    second.close()


def test_a_closed_memory_says_so(tmp_path: Path) -> None:
    made = aeon(tmp_path)
    made.close()
    with pytest.raises(StoreUnavailableError, match="not open"):
        made.status()
