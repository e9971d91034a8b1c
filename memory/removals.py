"""What was taken out of the journal, for the stores to follow; the ids alone are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from memory.database import Database
from memory.episode import Owner
from memory.fact_log import next_revision

SCHEMA = """
CREATE TABLE removal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    id TEXT NOT NULL
);
CREATE INDEX removal_by_id ON removal (id);
"""


@dataclass(frozen=True, slots=True)
class Removal:
    """``id`` is an episode's, a fact's or a summary's."""

    seq: int
    owner: Owner
    id: str


class Removals:
    """Deletes from the journal, durable on return. Thread-safe; raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def delete(self, owner: Owner, episodes: Collection[str]) -> int:
        """Deletes the owner's episodes with all that was learnt from them, those included that
        were evicted before. Returns how many episodes there were."""
        with self._database.write() as db:
            learnt = _forget(db, owner, episodes)
            count = _drop(db, owner, episodes)
            _note(db, owner, [*episodes, *learnt])
        return count

    def evict(self, owner: Owner, episodes: Collection[str]) -> int:
        """Deletes the owner's episodes and keeps what was learnt from them: their facts, and the
        summaries that stand for them. Returns how many there were."""
        with self._database.write() as db:
            count = _drop(db, owner, episodes)
            _note(db, owner, episodes)
        return count

    def follow(self, removed: Collection[tuple[Owner, str]]) -> int:
        """Deletes what another gateway of a shared store deleted, with what was learnt from it
        here; what is noted here already is left. Returns how many were new."""
        new = 0
        with self._database.write() as db:
            for owner, id_ in removed:
                if _noted(db, owner, id_):
                    continue
                learnt = _forget(db, owner, [id_])
                _drop(db, owner, [id_])
                _note(db, owner, [id_, *learnt])
                new += 1
        return new

    def after(self, seq: int, limit: int) -> list[Removal]:
        """The next ``limit`` removals of all owners."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT seq, tenant, user, id FROM removal WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, limit),
            ).fetchall()
        return [Removal(seq, Owner(tenant, user), id_) for seq, tenant, user, id_ in rows]

    def written_again(self, ids: Collection[str]) -> set[str]:
        """Of ``ids`` the episodes that are in the journal, written after they were removed."""
        marks = ", ".join("?" * len(ids))
        with self._database.read() as db:
            rows = db.execute(f"SELECT id FROM episode WHERE id IN ({marks})", (*ids,)).fetchall()
        return {row[0] for row in rows}


def _forget(db: sqlite3.Connection, owner: Owner, episodes: Collection[str]) -> list[str]:
    """Takes out what was learnt from the episodes: their facts, and the summaries that quote
    them; a fact that only they ended is current again. Returns the ids taken out."""
    gone: list[str] = []
    for episode in episodes:
        key = (episode, owner.tenant, owner.user)
        facts = db.execute(
            "SELECT id FROM fact WHERE source = ? AND tenant = ? AND user = ?", key
        ).fetchall()
        summaries = db.execute(
            "SELECT id FROM summary JOIN summary_member ON summary = id"
            " WHERE episode = ? AND tenant = ? AND user = ?",
            key,
        ).fetchall()
        gone += [row[0] for row in (*facts, *summaries)]
        for (id_,) in facts:
            db.execute("DELETE FROM fact WHERE id = ?", (id_,))
            db.execute("DELETE FROM conflict WHERE first = ? OR second = ?", (id_, id_))
        for (id_,) in summaries:
            db.execute("DELETE FROM summary WHERE id = ?", (id_,))
            db.execute("DELETE FROM summary_member WHERE summary = ?", (id_,))
        db.execute("DELETE FROM recall_use WHERE episode = ?", (episode,))
        ended = db.execute(
            "SELECT id FROM fact WHERE ended_by = ? AND tenant = ? AND user = ?", key
        ).fetchall()
        for (id_,) in ended:
            db.execute(
                "UPDATE fact SET revision = ?, valid_to = NULL, recorded_to = NULL,"
                " ended_by = NULL WHERE id = ?",
                (next_revision(db), id_),
            )
    return gone


def _drop(db: sqlite3.Connection, owner: Owner, episodes: Collection[str]) -> int:
    keys = [(episode, owner.tenant, owner.user) for episode in episodes]
    count = 0
    for key in keys:
        count += db.execute(
            "DELETE FROM episode WHERE id = ? AND tenant = ? AND user = ?", key
        ).rowcount
    return count


def _note(db: sqlite3.Connection, owner: Owner, ids: Collection[str]) -> None:
    db.executemany(
        "INSERT INTO removal (tenant, user, id) VALUES (?, ?, ?)",
        [(owner.tenant, owner.user, id_) for id_ in ids],
    )


def _noted(db: sqlite3.Connection, owner: Owner, id_: str) -> bool:
    found = db.execute(
        "SELECT 1 FROM removal WHERE id = ? AND tenant = ? AND user = ?",
        (id_, owner.tenant, owner.user),
    )
    return found.fetchone() is not None
