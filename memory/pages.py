"""The journal a page at a time: what lists, exports and counts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memory.database import Database, to_stamp
from memory.episode import Owner

Order = Literal["newest", "oldest"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which episodes: of a conversation, said from ``since`` to before ``until`` (aware times),
    with ``contains`` in either text (letters A to Z in any case)."""

    conversation: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    contains: str | None = None

    def conditions(self) -> tuple[list[str], list[object]]:
        """SQL conditions on an episode, and their values."""
        pairs: list[tuple[str, object]] = []
        if self.conversation is not None:
            pairs.append(("conversation = ?", self.conversation))
        if self.since is not None:
            pairs.append(("created >= ?", to_stamp(self.since)))
        if self.until is not None:
            pairs.append(("created < ?", to_stamp(self.until)))
        if self.contains is not None:
            escaped = self.contains
            for sign in "\\%_":
                escaped = escaped.replace(sign, f"\\{sign}")
            pairs.append(
                ("user_text || char(10) || answer_text LIKE ? ESCAPE '\\'", f"%{escaped}%")
            )
        return [condition for condition, _ in pairs], [value for _, value in pairs]


EVERYTHING = Filter()


def where(
    owner: Owner, wanted: Filter, start: int | None, order: Order
) -> tuple[str, Sequence[object]]:
    """The condition for the page that begins after journal number ``start``, in writing order."""
    conditions, values = wanted.conditions()
    conditions = ["tenant = ?", "user = ?", *conditions]
    values = [owner.tenant, owner.user, *values]
    if start is not None:
        conditions.append("seq < ?" if order == "newest" else "seq > ?")
        values.append(start)
    ordering = "DESC" if order == "newest" else "ASC"
    return f"{' AND '.join(conditions)} ORDER BY seq {ordering} LIMIT ?", values


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of an owner."""

    episodes: int = 0
    facts: int = 0
    summaries: int = 0
    replies: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.episodes + other.episodes,
            self.facts + other.facts,
            self.summaries + other.summaries,
            self.replies + other.replies,
        )


def count(database: Database, owner: Owner) -> Counts:
    with database.read() as db:
        return Counts(
            *(
                db.execute(
                    f"SELECT count(*) FROM {table} WHERE tenant = ? AND user = ?",
                    (owner.tenant, owner.user),
                ).fetchone()[0]
                for table in ("episode", "fact", "summary", "reply")
            )
        )


def users(database: Database, tenant: str) -> list[Owner]:
    """All owners of a tenant of whom anything is kept."""
    with database.read() as db:
        rows = db.execute(
            " UNION ".join(
                f"SELECT user FROM {table} WHERE tenant = :tenant"
                for table in ("episode", "fact", "summary", "reply")
            )
            + " ORDER BY 1",
            {"tenant": tenant},
        ).fetchall()
    return [Owner(tenant, user) for (user,) in rows]
