"""The journal's facts: learnt with the place they were learnt up to, in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from memory.database import Database, from_stamp, to_half, to_stamp, to_vector
from memory.episode import Episode, Owner
from memory.facts import Fact

LEARNER = "cerebellum"
"""The cursor of what was decided, beside those of the stores; it has no generation."""

MAX_FACTS = 1000
"""An owner's newest facts that are compared and searched: 3 MB of vectors in memory."""

_FACT = (
    "id, tenant, user, text, entities, source, valid_from, valid_to, recorded_from, recorded_to,"
    " supersedes"
)
_COLUMNS = f"revision, {_FACT}, embedding, vector"


@dataclass(frozen=True, slots=True)
class FactRow:
    """A fact with the number of its last change and the float32 unit vector of its text (None
    when another embedding model made it)."""

    revision: int
    fact: Fact
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Ending:
    """``fact`` is current no more because of what ``episode`` says; it held until ``valid_to``."""

    fact: str
    episode: str
    valid_to: datetime


@dataclass(frozen=True, slots=True)
class Learnt:
    """What an episode changes: facts with their vectors, and facts that end."""

    added: tuple[tuple[Fact, NDArray[np.float32]], ...] = ()
    ended: tuple[Ending, ...] = ()


class FactLog:
    """Facts of all owners, in the journal's database. Thread-safe; raises `StoreError`."""

    def __init__(self, database: Database, embedding_id: str) -> None:
        self._database = database
        self._embedding_id = embedding_id

    def learn(self, learnt: Learnt, *, up_to: int, now: datetime) -> None:
        """Keeps what episodes up to journal number ``up_to`` taught; durable on return.

        Both together or neither, so that after a crash no episode is decided twice or never. A
        fact that is there already, or has ended already, stays as it is.
        """
        with self._database.write() as db:
            for fact, vector in learnt.added:
                if db.execute("SELECT 1 FROM fact WHERE id = ?", (fact.id,)).fetchone():
                    continue
                if _decided(db, fact.source_episode, up_to):
                    _insert(db, fact, self._embedding_id, vector)
            for ending in learnt.ended:
                if not _decided(db, ending.episode, up_to):
                    continue
                db.execute(
                    "UPDATE fact SET revision = ?, valid_to = ?, recorded_to = ?, ended_by = ?"
                    " WHERE id = ? AND recorded_to IS NULL",
                    (
                        next_revision(db),
                        to_stamp(ending.valid_to),
                        to_stamp(now),
                        ending.episode,
                        ending.fact,
                    ),
                )
            db.execute("REPLACE INTO cursor VALUES (?, '', ?)", (LEARNER, up_to))

    def learnt_up_to(self) -> int:
        """The journal's number up to which every episode was decided."""
        with self._database.read() as db:
            found = db.execute("SELECT seq FROM cursor WHERE store = ?", (LEARNER,)).fetchone()
        return int(found[0]) if found else 0

    def state(self, owner: Owner) -> tuple[int, int]:
        """The owner's newest change and number of facts: another after any change."""
        with self._database.read() as db:
            newest, count = db.execute(
                "SELECT max(revision), count(*) FROM fact WHERE tenant = ? AND user = ?",
                (owner.tenant, owner.user),
            ).fetchone()
        return int(newest or 0), int(count)

    def current(self, owner: Owner, limit: int) -> list[FactRow]:
        """The owner's newest ``limit`` facts that are current, newest first."""
        return self._rows(
            "tenant = ? AND user = ? AND recorded_to IS NULL ORDER BY revision DESC LIMIT ?",
            (owner.tenant, owner.user, limit),
        )

    def newest(self, owner: Owner) -> list[tuple[Fact, NDArray[np.float32] | None]]:
        """The facts that are compared and searched, with their vectors."""
        return [(row.fact, row.vector) for row in self.current(owner, MAX_FACTS)]

    def tag_conflicts(
        self, owner: Owner, pairs: Collection[tuple[str, str]], now: datetime
    ) -> None:
        """These pairs of the owner's facts conflict, and no others; durable on return."""
        key = (owner.tenant, owner.user)
        with self._database.write() as db:
            db.execute("DELETE FROM conflict WHERE tenant = ? AND user = ?", key)
            db.executemany(
                "INSERT INTO conflict VALUES (?, ?, ?, ?, ?)",
                [(*key, first, second, to_stamp(now)) for first, second in pairs],
            )

    def conflicts(self, owner: Owner) -> list[tuple[str, str]]:
        """Pairs of the owner's facts that the last sleep tagged and that are both current."""
        current = "IN (SELECT id FROM fact WHERE recorded_to IS NULL)"
        with self._database.read() as db:
            return db.execute(
                "SELECT first, second FROM conflict WHERE tenant = ? AND user = ?"
                f" AND first {current} AND second {current}",
                (owner.tenant, owner.user),
            ).fetchall()

    def all(self, owner: Owner) -> list[Fact]:
        """Current and ended ones, oldest first."""
        rows = self._rows(
            "tenant = ? AND user = ? ORDER BY recorded_from, id", (owner.tenant, owner.user)
        )
        return [row.fact for row in rows]

    def after(self, revision: int, limit: int) -> list[FactRow]:
        """The next ``limit`` changes of all owners: what a store is made from."""
        return self._rows("revision > ? ORDER BY revision LIMIT ?", (revision, limit))

    def outdated(self, owner: Owner, episodes: Collection[str]) -> set[str]:
        """Of ``episodes`` those that taught something, all of which has ended."""
        marks = ", ".join("?" * len(episodes))
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT source FROM fact WHERE source IN ({marks})"
                " AND +tenant = ? AND +user = ? GROUP BY source"
                " HAVING count(*) = count(recorded_to)",
                (*episodes, owner.tenant, owner.user),
            ).fetchall()
        return {row[0] for row in rows}

    def answers_before(self, episode: Episode, limit: int) -> list[str]:
        """The last ``limit`` answers of its conversation before the episode's turn."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT answer_text FROM episode WHERE tenant = ? AND user = ?"
                " AND conversation = ? AND turn < ? ORDER BY turn DESC LIMIT ?",
                (episode.tenant, episode.user, episode.conversation, episode.turn, limit),
            )
            return [row[0] for row in rows]

    def keep_vectors(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Puts vectors (by fact id) of this embedding model in the place of what was there."""
        with self._database.write(durable=False) as db:
            db.executemany(
                "UPDATE fact SET embedding = ?, vector = ? WHERE id = ?",
                [(self._embedding_id, to_half(vector), id_) for id_, vector in vectors.items()],
            )

    def _rows(self, where: str, values: Sequence[object]) -> list[FactRow]:
        with self._database.read() as db:
            found = db.execute(f"SELECT {_COLUMNS} FROM fact WHERE {where}", values).fetchall()
        rows = []
        for columns in found:
            vector = None
            if columns[-1] is not None and columns[-2] == self._embedding_id:
                vector = to_vector(columns[-1])
            rows.append(FactRow(columns[0], _to_fact(columns[1:-2]), vector))
        return rows


def _decided(db: sqlite3.Connection, episode: str, up_to: int) -> bool:
    """Whether it is still what was decided: one that was deleted meanwhile teaches nothing, and
    one that was edited has a later number."""
    return (
        db.execute("SELECT 1 FROM episode WHERE id = ? AND seq <= ?", (episode, up_to)).fetchone()
        is not None
    )


def _insert(
    db: sqlite3.Connection, fact: Fact, embedding_id: str, vector: NDArray[np.float32]
) -> None:
    ends = [None if end is None else to_stamp(end) for end in (fact.valid_to, fact.recorded_to)]
    db.execute(
        f"INSERT INTO fact ({_COLUMNS}) VALUES ({', '.join('?' * 14)})",
        (
            next_revision(db),
            fact.id,
            fact.owner.tenant,
            fact.owner.user,
            fact.text,
            json.dumps(fact.entities),
            fact.source_episode,
            to_stamp(fact.valid_from),
            ends[0],
            to_stamp(fact.recorded_from),
            ends[1],
            json.dumps(fact.supersedes),
            embedding_id,
            to_half(vector),
        ),
    )


def next_revision(db: sqlite3.Connection) -> int:
    """The number of the next change of a fact."""
    db.execute("UPDATE fact_revision SET value = value + 1")
    return int(db.execute("SELECT value FROM fact_revision").fetchone()[0])


def _to_fact(columns: Sequence[object]) -> Fact:
    id_, tenant, user, text, entities, source, valid_from, valid_to = columns[:8]
    recorded_from, recorded_to, supersedes = columns[8:]
    return Fact(
        id=str(id_),
        owner=Owner(str(tenant), str(user)),
        text=str(text),
        entities=tuple(json.loads(str(entities))),
        source_episode=str(source),
        valid_from=_time(valid_from),
        valid_to=None if valid_to is None else _time(valid_to),
        recorded_from=_time(recorded_from),
        recorded_to=None if recorded_to is None else _time(recorded_to),
        supersedes=tuple(json.loads(str(supersedes))),
    )


def _time(stamp: object) -> datetime:
    assert isinstance(stamp, int)
    return from_stamp(stamp)
