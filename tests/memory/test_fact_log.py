"""Facts are kept with the place they were learnt up to, and end without being erased."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiki.errors import StoreUnavailableError
from memory import Episode, Owner
from memory.fact_log import Ending, Learnt
from memory.facts import Fact, fact_id, summary_id
from memory.journal import SCHEMA_VERSION, Journal
from tests.memory.parts import ALICE, START, episode, vector_of

LATER = START + timedelta(days=1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "memory", embedding_id="seeded")
    yield made
    made.close()


def said(journal: Journal, text: str) -> tuple[Episode, Fact]:
    one = episode(text)
    journal.append(one)
    return one, Fact(
        fact_id(one.id, 1), ALICE, text, ("rex",), one.id, one.created, None, START, None
    )


def learnt(*facts: Fact, ended: tuple[Ending, ...] = ()) -> Learnt:
    return Learnt(tuple((fact, vector_of(fact.text)) for fact in facts), ended)


def test_a_fact_comes_back_as_it_was_with_its_vector(journal: Journal) -> None:
    _, fact = said(journal, "Mon chien s'appelle Rex.")
    journal.facts.learn(learnt(fact), up_to=1, now=START)
    (row,) = journal.facts.current(ALICE, 10)
    assert row.fact == fact
    assert row.vector is not None
    np.testing.assert_allclose(row.vector, vector_of(fact.text), atol=1e-3)
    assert journal.facts.learnt_up_to() == 1


def test_learning_the_same_twice_changes_nothing(journal: Journal) -> None:
    _, fact = said(journal, "My dog is called Rex.")
    for _ in range(2):
        journal.facts.learn(learnt(fact), up_to=1, now=START)
    assert journal.facts.all(ALICE) == [fact]
    assert journal.facts.state(ALICE) == (1, 1)


def test_a_superseded_fact_ends_and_stays_in_the_history(journal: Journal) -> None:
    first, old = said(journal, "My dog is called Max.")
    second, new = said(journal, "Actually my dog is called Rex.")
    journal.facts.learn(learnt(old), up_to=1, now=START)
    ending = Ending(old.id, second.id, second.created)
    journal.facts.learn(learnt(new, ended=(ending,)), up_to=2, now=LATER)
    assert [row.fact for row in journal.facts.current(ALICE, 10)] == [new]
    ended = journal.facts.all(ALICE)[0]
    assert (ended.text, ended.valid_to, ended.recorded_to) == (old.text, second.created, LATER)
    assert journal.facts.outdated(ALICE, [first.id, second.id]) == {first.id}


def test_a_store_that_follows_the_revisions_sees_every_change(journal: Journal) -> None:
    _, old = said(journal, "My dog is called Max.")
    journal.facts.learn(learnt(old), up_to=1, now=START)
    seen = journal.facts.after(0, 10)[-1].revision
    later, _ = said(journal, "Max ran away.")
    journal.facts.learn(learnt(ended=(Ending(old.id, later.id, LATER),)), up_to=2, now=LATER)
    (change,) = journal.facts.after(seen, 10)
    assert change.fact.id == old.id
    assert not change.fact.current


def test_facts_of_an_episode_that_was_deleted_meanwhile_are_not_kept(journal: Journal) -> None:
    fact = Fact("x-f1", ALICE, "I like tea.", (), "x", START, None, START, None)
    journal.facts.learn(learnt(fact), up_to=1, now=START)
    assert journal.facts.all(ALICE) == []


def test_forgetting_an_episode_takes_its_facts_and_reopens_what_it_ended(journal: Journal) -> None:
    _, old = said(journal, "My dog is called Max.")
    second, new = said(journal, "Actually my dog is called Rex.")
    journal.facts.learn(learnt(old), up_to=1, now=START)
    ending = Ending(old.id, second.id, second.created)
    journal.facts.learn(learnt(new, ended=(ending,)), up_to=2, now=LATER)
    assert journal.removals.delete(ALICE, [second.id]) == 1
    assert [row.fact for row in journal.facts.current(ALICE, 10)] == [old]


def test_another_owners_facts_are_not_seen(journal: Journal) -> None:
    one, fact = said(journal, "My dog is called Max.")
    journal.facts.learn(learnt(fact), up_to=1, now=START)
    bob = Owner("acme", "bob")
    assert journal.facts.current(bob, 10) == []
    assert journal.facts.all(bob) == []
    assert journal.facts.state(bob) == (0, 0)
    assert journal.removals.delete(bob, [one.id]) == 0
    assert journal.facts.all(ALICE) == [fact]


def test_a_folder_of_the_first_format_opens_with_its_episodes(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    file = sqlite3.connect(folder / "journal.sqlite")
    file.executescript((Path(__file__).parent / "journal_v1.sql").read_text())
    file.close()
    journal = Journal(folder, embedding_id="seeded")
    assert [row.episode.user_text for row in journal.rows_after(0, 10)] == ["My dog is Rex."]
    assert journal.facts.learnt_up_to() == 0
    assert journal.facts.all(ALICE) == []
    journal.close()
    reopened = sqlite3.connect(folder / "journal.sqlite")
    assert reopened.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    reopened.close()


class FullDisk(sqlite3.Connection):
    """The disk has no room for a second copy of the file."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "VACUUM":
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *arguments)


def test_an_older_folder_whose_cleaning_failed_is_cleaned_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.sqlite"
    file = sqlite3.connect(path)
    file.executescript((Path(__file__).parent / "journal_v1.sql").read_text())
    file.execute("PRAGMA secure_delete=OFF")
    file.execute("CREATE TABLE old (text)")
    file.executemany("INSERT INTO old VALUES (?)", [("Zanzibarowitz " * 500,)] * 20)
    file.commit()
    file.execute("DROP TABLE old")
    file.commit()
    file.close()
    assert b"Zanzibarowitz" in path.read_bytes()
    with monkeypatch.context() as fault:
        fault.setattr("memory.database.sqlite3.connect", partial(sqlite3.connect, factory=FullDisk))
        with pytest.raises(StoreUnavailableError, match="is full"):
            Journal(tmp_path, embedding_id="seeded")
    journal = Journal(tmp_path, embedding_id="seeded")
    assert journal.scrub()
    assert b"Zanzibarowitz" not in path.read_bytes()
    journal.close()


def test_a_summarys_id_depends_on_its_members_alone() -> None:
    assert summary_id(["a", "b"]) == summary_id(["b", "a"]) != summary_id(["a"])
