"""The journal's episodes as recall compares them: their vectors and places, without their texts."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from memory.database import to_stamp
from memory.episode import Owner
from memory.when import Span

SCHEMA = "CREATE INDEX episode_by_time ON episode (tenant, user, created);"
HEAD = 64
"""Characters of the user's text that are read: a transcript's line names its speaker there."""


class Turn(NamedTuple):
    """An episode's place and its float16 vector as stored; none where it was written without one,
    or another embedding model made it. ``created`` is in microseconds since 1970.

    A tuple, because recall makes hundreds of them a question.
    """

    id: str
    conversation: str
    turn: int
    created: int
    head: str
    vector: bytes | None


def around(
    db: sqlite3.Connection, owner: Owner, ids: Collection[str], embedding_id: str
) -> list[Turn]:
    """The owner's episodes among ``ids`` and those a turn before or after each, every one once."""
    marks = ", ".join("?" * len(ids))
    # CROSS JOIN keeps SQLite from starting at the owner, who may have 100,000 episodes.
    rows = db.execute(
        f"SELECT id, conversation, turn, created, substr(user_text, 1, {HEAD}),"
        " iif(embedding = ?, vector, NULL) FROM episode WHERE seq IN ("
        " SELECT near.seq FROM episode AS hit CROSS JOIN episode AS near"
        " ON near.tenant = hit.tenant AND near.user = hit.user"
        " AND near.conversation = hit.conversation"
        " AND near.turn BETWEEN hit.turn - 1 AND hit.turn + 1"
        f" WHERE hit.id IN ({marks}) AND +hit.tenant = ? AND +hit.user = ?)",
        (embedding_id, *ids, owner.tenant, owner.user),
    )
    return list(map(Turn._make, rows))


def within(db: sqlite3.Connection, owner: Owner, spans: Sequence[Span], limit: int) -> list[str]:
    """The ids of what was said in the spans; of a span that holds more than ``limit`` episodes
    none, because it tells little."""
    found: list[str] = []
    for span in spans:
        rows = db.execute(
            "SELECT id FROM episode WHERE tenant = ? AND user = ? AND created >= ? AND created < ?"
            " LIMIT ?",
            (owner.tenant, owner.user, to_stamp(span.start), to_stamp(span.end), limit + 1),
        ).fetchall()
        if len(rows) <= limit:
            found += [row[0] for row in rows]
    return found
