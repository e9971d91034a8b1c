"""Which copy of an episode is the newest, where several journals hold one.

A version is microseconds since 1970 by the writer's clock, moved up where clocks differ: what is
written is newer than every removal of its id that the journal knows, and a removal is as new as
what it removes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import UTC, datetime

from memory.database import to_stamp
from memory.episode import Owner

# What was written before there were versions is older than any removal to come.
SCHEMA = """
ALTER TABLE episode ADD COLUMN written INTEGER NOT NULL DEFAULT 0;
ALTER TABLE removal ADD COLUMN until INTEGER NOT NULL DEFAULT -1;
ALTER TABLE removal ADD COLUMN followed INTEGER NOT NULL DEFAULT 0;
"""


def now() -> int:
    return to_stamp(datetime.now(UTC))


def removed_until(db: sqlite3.Connection, owner: Owner, id_: str) -> int:
    """The newest version of the owner's ``id_`` that was removed; -1 when none was."""
    found = db.execute(
        "SELECT max(until) FROM removal WHERE id = ? AND tenant = ? AND user = ?",
        (id_, owner.tenant, owner.user),
    ).fetchone()[0]
    return -1 if found is None else int(found)


def to_write(db: sqlite3.Connection, owner: Owner, id_: str) -> int:
    """The version of what is written next under the owner's ``id_``."""
    return max(now(), removed_until(db, owner, id_) + 1)


def to_remove(db: sqlite3.Connection, owner: Owner, episodes: Collection[str]) -> int:
    """The version of a removal of the owner's ``episodes``."""
    marks = ", ".join("?" * len(episodes))
    found = db.execute(
        f"SELECT max(written) FROM episode WHERE id IN ({marks}) AND +tenant = ? AND +user = ?",
        (*episodes, owner.tenant, owner.user),
    ).fetchone()[0]
    return max(now(), found or 0)


def to_clear(db: sqlite3.Connection, owner: Owner) -> int:
    """The version of a removal of all the owner's episodes."""
    found = db.execute(
        "SELECT max(written) FROM episode WHERE tenant = ? AND user = ?",
        (owner.tenant, owner.user),
    ).fetchone()[0]
    return max(now(), found or 0)
