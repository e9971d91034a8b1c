"""The responses that callers may go on from, or fetch, for thirty days."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass

from kiki.errors import UnknownResponseError
from memory.database import Database
from memory.episode import Owner

LIFETIME_S = 30 * 24 * 3600
MOST_LINKS = 1000
"""Responses in a row: a longer chain fits no context."""

SCHEMA = """
CREATE TABLE response (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    previous TEXT,
    input TEXT NOT NULL,
    body TEXT NOT NULL,
    stored REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX response_by_owner ON response (tenant, user);
CREATE INDEX response_by_age ON response (stored);
"""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """``input`` are the items that came with it alone, ``body`` is the response, both as JSON."""

    id: str
    owner: Owner
    previous: str | None
    input: str
    body: str


class ResponseLog:
    """Kept in the journal, durable on return. Thread-safe; raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, response: StoredResponse) -> None:
        now = time.time()
        owner = response.owner
        with self._database.write() as db:
            db.execute("DELETE FROM response WHERE stored <= ?", (now - LIFETIME_S,))
            db.execute(
                "INSERT INTO response VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    response.id,
                    owner.tenant,
                    owner.user,
                    response.previous,
                    response.input,
                    response.body,
                    now,
                ),
            )

    def find(self, tenant: str, id_: str) -> StoredResponse:
        """Raises `UnknownResponseError` where the tenant has none of that id."""
        with self._database.read() as db:
            return _find(db, tenant, id_)

    def chain(self, owner: Owner, id_: str) -> list[StoredResponse]:
        """The owner's responses up to that one, oldest first. Raises `UnknownResponseError` where
        one of them is not there."""
        links: list[StoredResponse] = []
        next_: str | None = id_
        with self._database.read() as db:
            while next_ is not None and len(links) < MOST_LINKS:
                link = _find(db, owner.tenant, next_)
                if link.owner != owner:
                    raise unknown(next_)
                links.append(link)
                next_ = link.previous
        return links[::-1]

    def delete(self, tenant: str, id_: str) -> None:
        """Raises `UnknownResponseError` where the tenant has none of that id."""
        with self._database.write() as db:
            gone = db.execute("DELETE FROM response WHERE tenant = ? AND id = ?", (tenant, id_))
            if not gone.rowcount:
                raise unknown(id_)


def drop(db: sqlite3.Connection, owner: Owner, episodes: Collection[str]) -> None:
    """Takes out the owner's responses that name one of the episodes: the one it was the answer
    of, those that go on from it, and those that tell it as recalled."""
    db.executemany(
        "DELETE FROM response WHERE tenant = ? AND user = ? AND instr(body, ?)",
        [(owner.tenant, owner.user, json.dumps(episode)) for episode in episodes],
    )


def unknown(id_: str) -> UnknownResponseError:
    return UnknownResponseError(
        f"No response has the id {id_!r}.",
        fix="It was not stored, was deleted, or is older than thirty days.",
    )


def _find(db: sqlite3.Connection, tenant: str, id_: str) -> StoredResponse:
    found = db.execute(
        "SELECT user, previous, input, body FROM response"
        " WHERE id = ? AND tenant = ? AND stored > ?",
        (id_, tenant, time.time() - LIFETIME_S),
    ).fetchone()
    if found is None:
        raise unknown(id_)
    user, previous, input_, body = found
    return StoredResponse(id_, Owner(tenant, user), previous, input_, body)
