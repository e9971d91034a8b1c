"""Episodes as rows of the journal."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory import versions
from memory.database import from_stamp, to_half, to_stamp, to_vector
from memory.episode import NEXT_TURN, Episode, Owner

# AUTOINCREMENT: a number is never used twice, so a store's cursor stays true after deletes.
SCHEMA = """
CREATE TABLE episode (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    conversation TEXT NOT NULL,
    turn INTEGER NOT NULL,
    user_text TEXT NOT NULL,
    answer_text TEXT NOT NULL,
    domains TEXT NOT NULL,
    adapters TEXT NOT NULL,
    created INTEGER NOT NULL,
    status TEXT NOT NULL,
    embedding TEXT,
    vector BLOB
);
CREATE INDEX episode_by_turn ON episode (tenant, user, conversation, turn);
CREATE INDEX episode_by_owner ON episode (tenant, user, seq);
CREATE TABLE reply (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    reply TEXT NOT NULL,
    stored REAL NOT NULL,
    PRIMARY KEY (tenant, user, key)
) WITHOUT ROWID;
CREATE INDEX reply_by_age ON reply (stored);
CREATE TABLE cursor (store TEXT PRIMARY KEY, generation TEXT NOT NULL, seq INTEGER NOT NULL);
"""
EPISODE = (
    "id, tenant, user, conversation, turn, user_text, answer_text, domains, adapters, created,"
    " status"
)
COLUMNS = f"{EPISODE}, seq, embedding, vector, written"
_INSERTED = f"{EPISODE}, embedding, vector, written"


@dataclass(frozen=True, slots=True)
class JournalRow:
    """An episode with its place in the journal, the float32 vector of its user text (none when it
    was written without one, or another embedding model made it), and its version
    (`memory.versions`)."""

    seq: int
    episode: Episode
    vector: NDArray[np.float32] | None
    written: int


def to_row(columns: tuple[Any, ...], embedding_id: str) -> JournalRow:
    """A row of `COLUMNS`; its vector where ``embedding_id`` made it."""
    seq, embedding, blob, written = columns[-4:]
    vector = None
    if blob is not None and embedding == embedding_id:
        vector = to_vector(blob)
    return JournalRow(seq, to_episode(columns[:-4]), vector, written)


def to_episode(columns: tuple[Any, ...]) -> Episode:
    """A row of `EPISODE`."""
    id_, tenant, user, conversation, turn, user_text, answer_text = columns[:7]
    domains, adapters, created, status = columns[7:]
    return Episode(
        id=id_,
        tenant=tenant,
        user=user,
        conversation=conversation,
        turn=turn,
        user_text=user_text,
        answer_text=answer_text,
        domains=tuple(json.loads(domains)),
        adapters=tuple((name, weight) for name, weight in json.loads(adapters)),
        created=from_stamp(created),
        status=status,
    )


def owned_id(owner: Owner, id_: str) -> str:
    """An id of this owner's alone, the same for the same ``id_``."""
    digest = hashlib.sha256(json.dumps([owner.tenant, owner.user, id_]).encode()).hexdigest()
    return f"own-{digest[:32]}"


def there(db: sqlite3.Connection, id_: str, owner: Owner | None = None) -> bool:
    found = db.execute("SELECT tenant, user FROM episode WHERE id = ?", (id_,)).fetchone()
    return found is not None and (owner is None or Owner(*found) == owner)


def own_place(db: sqlite3.Connection, episode: Episode) -> tuple[str, bool]:
    """The id under which its owner keeps the episode, and whether it is still to be put there."""
    own = owned_id(episode.owner, episode.id)
    if there(db, own, episode.owner):
        return own, False
    if there(db, episode.id, episode.owner):
        return episode.id, False
    return (own if there(db, episode.id) else episode.id), True


def insert(
    db: sqlite3.Connection,
    episode: Episode,
    vector: NDArray[np.float32] | None,
    embedding_id: str,
    written: int | None = None,
) -> None:
    """``written`` is the version of a copy; what is new here gets one."""
    if written is None:
        written = versions.to_write(db, episode.owner, episode.id)
    if episode.turn == NEXT_TURN:
        last = db.execute(
            "SELECT ifnull(max(turn), -1) FROM episode"
            " WHERE tenant = ? AND user = ? AND conversation = ?",
            (episode.tenant, episode.user, episode.conversation),
        ).fetchone()[0]
        episode = replace(episode, turn=last + 1)
    db.execute(
        f"INSERT INTO episode ({_INSERTED}) VALUES ({', '.join('?' * 14)})",
        (*_to_columns(episode, vector, embedding_id), written),
    )


def _to_columns(
    episode: Episode, vector: NDArray[np.float32] | None, embedding_id: str
) -> tuple[object, ...]:
    return (
        episode.id,
        episode.tenant,
        episode.user,
        episode.conversation,
        episode.turn,
        episode.user_text,
        episode.answer_text,
        json.dumps(episode.domains),
        json.dumps(episode.adapters),
        to_stamp(episode.created),
        episode.status,
        None if vector is None else embedding_id,
        None if vector is None else to_half(vector),
    )
