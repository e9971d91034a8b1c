"""The replies that the journal keeps under their Idempotency-Keys, for a day."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection

from kiki.errors import IdempotencyConflictError
from memory.episode import IdempotentReply, Owner

LIFETIME_S = 24 * 3600


def keep(db: sqlite3.Connection, owner: Owner, reply: IdempotentReply) -> bool:
    """True if the reply was new. Raises `IdempotencyConflictError` when its key was used for
    another request."""
    now = time.time()
    db.execute("DELETE FROM reply WHERE stored <= ?", (now - LIFETIME_S,))
    found = db.execute(
        "SELECT fingerprint FROM reply WHERE tenant = ? AND user = ? AND key = ?",
        (owner.tenant, owner.user, reply.key),
    ).fetchone()
    if found and found[0] != reply.fingerprint:
        raise IdempotencyConflictError(
            f"The Idempotency-Key {reply.key!r} was used before for a different request.",
            fix="Send a new key with a new request.",
        )
    if found:
        return False
    db.execute(
        "INSERT INTO reply VALUES (?, ?, ?, ?, ?, ?)",
        (owner.tenant, owner.user, reply.key, reply.fingerprint, reply.reply, now),
    )
    return True


def find(db: sqlite3.Connection, owner: Owner, key: str) -> IdempotentReply | None:
    found = db.execute(
        "SELECT key, fingerprint, reply FROM reply"
        " WHERE tenant = ? AND user = ? AND key = ? AND stored > ?",
        (owner.tenant, owner.user, key, time.time() - LIFETIME_S),
    ).fetchone()
    return IdempotentReply(*found) if found else None


def drop(db: sqlite3.Connection, owner: Owner, episodes: Collection[str]) -> int:
    """Takes out the owner's replies that name one of the episodes: its own answer, and those that
    tell it as recalled. Returns how many there were."""
    return sum(
        db.execute(
            "DELETE FROM reply WHERE tenant = ? AND user = ? AND instr(reply, ?)",
            (owner.tenant, owner.user, json.dumps(episode)),
        ).rowcount
        for episode in episodes
    )
