"""What was taken out of the journal, for the stores to follow; the ids alone are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from memory import reply_log, response_log, versions
from memory.atlas import Removed
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
    """``id`` is an episode's, a fact's or a summary's; every version up to ``until`` is gone.
    ``followed``: another gateway had deleted it, and has told the others."""

    seq: int
    owner: Owner
    id: str
    until: int
    followed: bool


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
            return _erase(db, owner, _of(db, owner, "episode", ids), ids)

    def clear(self, owner: Owner) -> Counts:
        """Deletes all that there is of the owner, in one transaction."""
        key = (owner.tenant, owner.user)
        counts = {}
        with self._database.write() as db:
            until = versions.to_clear(db, owner)
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
                    "INSERT INTO removal (tenant, user, id, until)"
                    f" SELECT tenant, user, id, ? FROM {table} WHERE tenant = ? AND user = ?",
                    (until, *key),
                )
            for table in ("episode", "fact", "summary", "reply", "response", "conflict"):
                counts[table] = db.execute(
                    f"DELETE FROM {table} WHERE tenant = ? AND user = ?", key
                ).rowcount
        return Counts(counts["episode"], counts["fact"], counts["summary"], counts["reply"])

    def evict(self, owner: Owner, episodes: Collection[str]) -> int:
        """Deletes the owner's episodes and keeps what was learnt from them: their facts, and the
        summaries that stand for them. Returns how many there were."""
        with self._database.write() as db:
            there = _of(db, owner, "episode", episodes)
            until = versions.to_remove(db, owner, there)
            _drop(db, owner, there)
            _note(db, owner, there, until)
        return len(there)

    def follow(self, told: Collection[Removed]) -> list[Removed]:
        """Deletes what another gateway of a shared store deleted, with what was learnt from it
        here; what was written after is left. Returns those of which there was something."""
        with self._database.read() as db:
            told = [one for one in told if _held(db, one)]
        if not told:
            return []
        with self._database.write() as db:
            found = [one for one in told if _held(db, one)]
            for one in found:
                _erase(db, one.owner, [one.id], [one.id], until=one.until)
        return found

    def after(self, seq: int, limit: int) -> list[Removal]:
        """The next ``limit`` removals of all owners."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT seq, tenant, user, id, until, followed FROM removal WHERE seq > ?"
                " ORDER BY seq LIMIT ?",
                (seq, limit),
            ).fetchall()
        return [
            Removal(seq, Owner(tenant, user), id_, until, bool(followed))
            for seq, tenant, user, id_, until, followed in rows
        ]

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


def take_out(
    db: sqlite3.Connection, owner: Owner, episodes: Collection[str], *, until: int | None = None
) -> Counts:
    """Deletes the owner's episodes with all that was learnt from them and the replies that tell
    them, and notes it for the stores. ``until`` is the version of another gateway's removal, which
    is followed."""
    there = _of(db, owner, "episode", episodes)
    version = versions.to_remove(db, owner, there) if until is None else until
    facts, summaries = _forget(db, owner, episodes)
    replies = reply_log.drop(db, owner, episodes)
    response_log.drop(db, owner, episodes)
    _drop(db, owner, there)
    _note(db, owner, [*there, *facts, *summaries], version, followed=until is not None)
    return Counts(len(there), len(facts), len(summaries), replies)


def _erase(
    db: sqlite3.Connection,
    owner: Owner,
    episodes: Collection[str],
    ids: Collection[str],
    *,
    until: int | None = None,
) -> Counts:
    """Takes the owner's ``episodes`` out, and the facts and summaries among ``ids``."""
    facts = _of(db, owner, "fact", ids)
    summaries = _of(db, owner, "summary", ids)
    gone = take_out(db, owner, episodes, until=until)
    _drop_facts(db, facts)
    _drop_summaries(db, summaries)
    version = versions.now() if until is None else until
    _note(db, owner, [*facts, *summaries], version, followed=until is not None)
    return gone + Counts(facts=len(facts), summaries=len(summaries))


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


def _drop(db: sqlite3.Connection, owner: Owner, there: Collection[str]) -> None:
    for id_ in there:
        db.execute("DELETE FROM recall_use WHERE episode = ?", (id_,))
        db.execute(
            "DELETE FROM episode WHERE id = ? AND tenant = ? AND user = ?",
            (id_, owner.tenant, owner.user),
        )


def _note(
    db: sqlite3.Connection,
    owner: Owner,
    ids: Collection[str],
    until: int,
    *,
    followed: bool = False,
) -> None:
    db.executemany(
        "INSERT INTO removal (tenant, user, id, until, followed) VALUES (?, ?, ?, ?, ?)",
        [(owner.tenant, owner.user, id_, until, followed) for id_ in ids],
    )


def _held(db: sqlite3.Connection, one: Removed) -> bool:
    """Whether anything is here of what another gateway removed; not what sleep has left of an
    episode that was evicted here."""
    owner = (one.owner.tenant, one.owner.user)
    if versions.removed_until(db, one.owner, one.id) >= one.until:
        return False
    for table, version in (
        ("episode", "written"),
        ("fact", "recorded_from"),
        ("summary", "created"),
    ):
        found = db.execute(
            f"SELECT {version} FROM {table} WHERE id = ? AND tenant = ? AND user = ?",
            (one.id, *owner),
        ).fetchone()
        if found is not None:
            return bool(found[0] <= one.until)
    left = db.execute(
        "SELECT EXISTS (SELECT 1 FROM fact WHERE source = ?1 AND tenant = ?2 AND user = ?3"
        " AND recorded_from <= ?4) OR EXISTS (SELECT 1 FROM summary_member"
        " JOIN summary ON summary = id WHERE episode = ?1 AND tenant = ?2 AND user = ?3"
        " AND created <= ?4)",
        (one.id, *owner, one.until),
    )
    return bool(left.fetchone()[0])
