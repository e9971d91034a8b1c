"""What was taken out of the journal, for the stores to follow; the ids alone are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from memory import reply_log
from memory.database import Database
from memory.episode import Owner
from memory.fact_log import next_revision
from memory.pages import Counts

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
            return take_out(db, owner, episodes).episodes

    def erase(self, owner: Owner, ids: Collection[str]) -> Counts:
        """Deletes what the owner has under these ids: episodes with all that was learnt from
        them, single facts and summaries. What is not the owner's is left."""
        with self._database.write() as db:
            episodes = _of(db, owner, "episode", ids)
            facts = _of(db, owner, "fact", ids)
            summaries = _of(db, owner, "summary", ids)
            gone = take_out(db, owner, episodes)
            _drop_facts(db, facts)
            _drop_summaries(db, summaries)
            _note(db, owner, [*facts, *summaries])
        return gone + Counts(facts=len(facts), summaries=len(summaries))

    def clear(self, owner: Owner) -> Counts:
        """Deletes all that there is of the owner, in one transaction."""
        key = (owner.tenant, owner.user)
        counts = {}
        with self._database.write() as db:
            db.execute(
                "DELETE FROM recall_use WHERE episode IN"
                " (SELECT id FROM episode WHERE tenant = ? AND user = ?)",
                key,
            )
            db.execute(
                "DELETE FROM summary_member WHERE summary IN"
                " (SELECT id FROM summary WHERE tenant = ? AND user = ?)",
                key,
            )
            for table in ("episode", "fact", "summary"):
                db.execute(
                    "INSERT INTO removal (tenant, user, id)"
                    f" SELECT tenant, user, id FROM {table} WHERE tenant = ? AND user = ?",
                    key,
                )
            for table in ("episode", "fact", "summary", "reply", "conflict"):
                counts[table] = db.execute(
                    f"DELETE FROM {table} WHERE tenant = ? AND user = ?", key
                ).rowcount
        return Counts(counts["episode"], counts["fact"], counts["summary"], counts["reply"])

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
                take_out(db, owner, [id_])
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

    def written_again(self, ids: Collection[str]) -> set[tuple[Owner, str]]:
        """Of ``ids`` those that are in the journal, written after they were removed; by whom,
        because another owner may have taken an id that was free again."""
        marks = ", ".join("?" * len(ids))
        with self._database.read() as db:
            rows = db.execute(
                " UNION ".join(
                    f"SELECT tenant, user, id FROM {table} WHERE id IN ({marks})"
                    for table in ("episode", "fact", "summary")
                ),
                (*ids, *ids, *ids),
            ).fetchall()
        return {(Owner(tenant, user), id_) for tenant, user, id_ in rows}

    def noted(self, ids: Collection[str]) -> set[str]:
        """Of ``ids`` those that were removed once: a store may have an older text of them."""
        marks = ", ".join("?" * len(ids))
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT DISTINCT id FROM removal WHERE id IN ({marks})", (*ids,)
            ).fetchall()
        return {row[0] for row in rows}


def take_out(db: sqlite3.Connection, owner: Owner, episodes: Collection[str]) -> Counts:
    """Deletes the owner's episodes with all that was learnt from them and the replies that tell
    them, and notes it for the stores."""
    facts, summaries = _forget(db, owner, episodes)
    replies = reply_log.drop(db, owner, episodes)
    count = _drop(db, owner, episodes)
    _note(db, owner, [*episodes, *facts, *summaries])
    return Counts(count, len(facts), len(summaries), replies)


def _forget(
    db: sqlite3.Connection, owner: Owner, episodes: Collection[str]
) -> tuple[list[str], list[str]]:
    """Takes out what was learnt from the episodes: their facts, and the summaries that quote
    them; a fact that only they ended is current again. Returns the ids taken out."""
    gone: tuple[list[str], list[str]] = ([], [])
    for episode in episodes:
        key = (episode, owner.tenant, owner.user)
        facts = _ids(db, "SELECT id FROM fact WHERE source = ? AND tenant = ? AND user = ?", key)
        summaries = _ids(
            db,
            "SELECT id FROM summary JOIN summary_member ON summary = id"
            " WHERE episode = ? AND tenant = ? AND user = ?",
            key,
        )
        _drop_facts(db, facts)
        _drop_summaries(db, summaries)
        db.execute("DELETE FROM recall_use WHERE episode = ?", (episode,))
        ended = "SELECT id FROM fact WHERE ended_by = ? AND tenant = ? AND user = ?"
        for id_ in _ids(db, ended, key):
            db.execute(
                "UPDATE fact SET revision = ?, valid_to = NULL, recorded_to = NULL,"
                " ended_by = NULL WHERE id = ?",
                (next_revision(db), id_),
            )
        gone[0].extend(facts)
        gone[1].extend(summaries)
    return gone


def _drop_facts(db: sqlite3.Connection, ids: Collection[str]) -> None:
    for id_ in ids:
        db.execute("DELETE FROM fact WHERE id = ?", (id_,))
        db.execute("DELETE FROM conflict WHERE first = ? OR second = ?", (id_, id_))


def _drop_summaries(db: sqlite3.Connection, ids: Collection[str]) -> None:
    for id_ in ids:
        db.execute("DELETE FROM summary WHERE id = ?", (id_,))
        db.execute("DELETE FROM summary_member WHERE summary = ?", (id_,))


def _ids(db: sqlite3.Connection, query: str, values: tuple[str, ...]) -> list[str]:
    return [row[0] for row in db.execute(query, values).fetchall()]


def _of(db: sqlite3.Connection, owner: Owner, table: str, ids: Collection[str]) -> list[str]:
    marks = ", ".join("?" * len(ids))
    query = f"SELECT id FROM {table} WHERE id IN ({marks}) AND +tenant = ? AND +user = ?"
    return _ids(db, query, (*ids, owner.tenant, owner.user))


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
