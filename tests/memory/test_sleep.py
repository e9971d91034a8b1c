"""Sleep summarises, tags and evicts what a summary covers; a dry run changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from memory import Aeon, Episode, Owner
from memory.cerebellum import Cerebellum
from memory.fact_log import Learnt
from memory.facts import Fact
from memory.sleep import EVICT_UNDER, SleepReport, SleepSettings, clusters, keep_scores, until
from memory.summarise import central_sentences
from memory.summary_log import Sleeper
from routing.embedder import Embedder
from tests.memory.parts import ALICE, START, episode

LATER = START + timedelta(days=120)
TALK = [
    "The pump in the greenhouse leaks again.",
    "The greenhouse pump leaks at the seal.",
    "We replaced the seal of the greenhouse pump.",
    "The pump of the greenhouse leaks no more.",
]
NOTHING = SleepSettings()


@pytest.fixture
def memory(tmp_path: Path, embedder: Embedder) -> Iterator[Aeon]:
    made = Aeon(tmp_path / "memory", embedding_id=embedder.id, embed=embedder.embed)
    made.open()
    yield made
    made.close()


def talk(memory: Aeon, embedder: Embedder, owner: Owner = ALICE) -> list[Episode]:
    said = [episode(text, "Noted.", tenant=owner.tenant, user=owner.user) for text in TALK]
    for one, vector in zip(said, embedder.embed(TALK), strict=True):
        memory.write(one, vector)
    assert memory.drain(30)
    decided(memory)
    return said


def decided(memory: Aeon) -> None:
    """As if the cerebellum had learnt nothing of all that is there."""
    journal = memory._parts()[0]
    journal.facts.learn(Learnt(), up_to=journal.last_seq(), now=START)


def sleep(memory: Aeon, settings: SleepSettings = NOTHING, **how: object) -> SleepReport:
    return memory.knowledge.sleep(settings, now=LATER, **how)  # type: ignore[arg-type]


def left(memory: Aeon, owner: Owner = ALICE) -> list[str]:
    return [one.user_text for one in memory.episodes(owner, "c1")]


def test_what_belongs_together_is_summarised_and_then_evicted(
    memory: Aeon, embedder: Embedder
) -> None:
    said = talk(memory, embedder)
    dry = sleep(memory, dry_run=True)
    assert left(memory) == TALK
    (night,) = sleep(memory).owners
    assert (night,) == dry.owners
    assert night.summarised == (tuple(one.id for one in said),)
    assert night.evicted
    assert set(left(memory)) == {one.user_text for one in said if one.id not in night.evicted}
    question = embedder.embed(["Does the greenhouse pump leak?"])[0]
    (hit,) = memory.knowledge.summaries(ALICE, question, 3)
    assert set(hit.summary.members) == {one.id for one in said}
    assert "pump" in hit.summary.text


def test_a_second_sleep_finds_nothing_more_to_do(memory: Aeon, embedder: Embedder) -> None:
    talk(memory, embedder)
    assert sleep(memory).owners
    assert sleep(memory).owners == ()


def test_a_sleep_that_is_cut_off_goes_on_at_the_next(memory: Aeon, embedder: Embedder) -> None:
    bob = Owner("acme", "bob")
    talk(memory, embedder)
    talk(memory, embedder, bob)
    asked = iter([False, False, True, True])
    first = sleep(memory, stopping=lambda: next(asked))
    assert [one.owner for one in first.owners] == [ALICE]
    assert [one.owner for one in sleep(memory).owners] == [bob]


def test_evicted_episodes_leave_both_stores_and_their_facts_stay(
    memory: Aeon, embedder: Embedder
) -> None:
    said = talk(memory, embedder)
    journal = memory._parts()[0]
    ended = Fact("f1", ALICE, "The pump leaks.", (), said[0].id, START, START, START, START)
    journal.facts.learn(
        Learnt(((ended, embedder.embed(["The pump leaks."])[0]),)), up_to=1, now=START
    )
    gone = set(sleep(memory).owners[0].evicted)
    assert said[0].id in gone
    assert memory.drain(30)
    _, atlas, trace = memory._parts()
    wait_until = datetime.now(UTC) + timedelta(seconds=30)
    while atlas.store().count(ALICE) > len(TALK) - len(gone):
        assert datetime.now(UTC) < wait_until
        atlas.wake()
    while trace.store().count(ALICE) > len(TALK) - len(gone):
        assert datetime.now(UTC) < wait_until
        trace.wake()
    assert memory.knowledge.facts(ALICE) == [ended]


def test_nothing_is_evicted_before_it_was_decided_what_it_teaches(
    memory: Aeon, embedder: Embedder
) -> None:
    journal = memory._parts()[0]
    said = [episode(text, "Noted.") for text in TALK]
    memory.rights.keep(said)
    assert memory.drain(30)
    (night,) = sleep(memory).owners
    assert night.summarised
    assert night.evicted == ()
    assert left(memory) == TALK
    journal.facts.learn(Learnt(), up_to=1, now=START)
    (night,) = sleep(memory).owners
    assert night.evicted == (said[0].id,)


def test_what_was_recalled_is_kept(memory: Aeon, embedder: Embedder) -> None:
    said = talk(memory, embedder)
    memory.knowledge.note_uses([one.id for one in said] * 3)
    assert sleep(memory).owners[0].evicted == ()
    assert left(memory) == TALK


def test_old_episodes_expire_with_what_was_made_of_them(memory: Aeon, embedder: Embedder) -> None:
    talk(memory, embedder)
    sleep(memory)
    sleep(memory, SleepSettings(ttl_days=30))
    assert left(memory) == []


def test_a_tenant_is_cut_to_its_cap_and_another_is_not(memory: Aeon, embedder: Embedder) -> None:
    small = Owner("small", "")
    memory.knowledge.note_uses([one.id for one in talk(memory, embedder)])
    memory.write(episode("My boat is green.", tenant="small", user=""), None)
    assert memory.drain(30)
    sleep(memory, SleepSettings(max_episodes=1))
    assert len(left(memory)) == 1
    assert len(left(memory, small)) == 1


def test_a_model_writes_the_summary_and_its_junk_leaves_the_sentences(
    memory: Aeon, embedder: Embedder
) -> None:
    talk(memory, embedder)
    report = sleep(memory, ask=lambda *_, **__: json.dumps({"summary": "A pump was mended."}))
    assert report.summariser == {"model": 1}
    talk(memory, embedder, Owner("acme", "bob"))
    report = sleep(memory, ask=lambda *_, **__: "not JSON")
    assert report.summariser == {"central sentences": 1}


def test_facts_that_contradict_each_other_are_tagged(tmp_path: Path, embedder: Embedder) -> None:
    memory = Aeon(
        tmp_path / "memory",
        embedding_id=embedder.id,
        embed=embedder.embed,
        cerebellum=Cerebellum(lambda *_, **__: '{"action": "NONE", "new": true, "keep": [1]}'),
    )
    memory.open()
    journal = memory._parts()[0]
    for number, text in enumerate(["My dog is called Max.", "My dog is called Rex."], start=1):
        one = episode(text)
        memory.write(one, None)
        assert memory.knowledge.drain(30)
        fact = Fact(f"f{number}", ALICE, text, (), one.id, one.created, None, START, None)
        vector = embedder.embed([text])[0]
        journal.facts.learn(Learnt(((fact, vector),)), up_to=number, now=START)
    sleep(memory)
    assert ("f1", "f2") in memory.knowledge.conflicts(ALICE)
    memory.close()


def sleeper(id_: str, vector: list[float], hours: float, **changes: object) -> Sleeper:
    made = np.array(vector, np.float16)
    fields: dict[str, object] = {"words": 10, "uses": 0, "teaches": False, "covered": False}
    created = START + timedelta(hours=hours)
    return Sleeper(id_, 0, created, made, **fields | changes)  # type: ignore[arg-type]


def test_a_cluster_is_one_subject_within_a_day() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    said = [
        sleeper("a", east, 0),
        sleeper("b", north, 1),
        sleeper("c", east, 2),
        sleeper("d", east, 23),
        sleeper("late", east, 30),
    ]
    assert clusters(said, LATER) == (("a", "c", "d"),)
    assert clusters(said, START + timedelta(hours=23)) == ()


def test_the_keep_score_grows_with_use_age_and_length() -> None:
    twin = [1.0, 0.0]
    old = sleeper("old", twin, 0)
    scores = keep_scores(
        [
            old,
            sleeper("new", twin, 119 * 24),
            sleeper("used", twin, 0, uses=2),
            sleeper("long", twin, 0, words=400),
            sleeper("teaches", twin, 0, teaches=True),
        ],
        LATER,
    )
    assert scores[0] < EVICT_UNDER
    assert all(score > scores[0] for score in scores[1:])


def test_a_summary_without_a_model_is_made_of_what_was_said(embedder: Embedder) -> None:
    text = central_sentences([episode(text) for text in TALK], embedder.embed)
    assert all(f"{sentence.rstrip('.')}." in TALK for sentence in text.split(". "))


@pytest.mark.parametrize(
    ("sleep_at", "seconds"),
    [("6h", 21600), ("30m", 1800), ("03:30", 12600), ("00:00", 86400)],
)
def test_the_next_sleep_is_at_its_time(sleep_at: str, seconds: float) -> None:
    assert until(sleep_at, datetime(2026, 5, 1, tzinfo=UTC)) == seconds
