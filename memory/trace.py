"""Trace: finds episodes by their words, and by who and what they mention."""

from __future__ import annotations

import math
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from memory.atlas import REBUILD
from memory.database import Database
from memory.episode import Episode, Owner
from memory.words import entities, fold, search_terms

SCHEMA_VERSION = 1
# At most so many of the newest episodes are read for one word or one entity: it bounds the time
# of a common word, which tells little anyway.
MAX_POSTINGS = 64
FOLLOW_UP_WEIGHT = 0.3

# Nodes and edges are general, so that new kinds need no new tables. The full text keeps the
# owner as a word of its own column: the engine then intersects the posting lists, and one
# tenant's search doesn't walk another's episodes.
_SCHEMA = """
CREATE TABLE meta (generation TEXT NOT NULL);
CREATE TABLE owner (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    episodes INTEGER NOT NULL DEFAULT 0,
    first_episode INTEGER NOT NULL DEFAULT 0,
    last_episode INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, user)
);
CREATE TABLE node (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    UNIQUE (owner, kind, key)
);
CREATE TABLE edge (
    source INTEGER NOT NULL,
    kind TEXT NOT NULL,
    target INTEGER NOT NULL,
    PRIMARY KEY (source, kind, target)
) WITHOUT ROWID;
CREATE INDEX edge_back ON edge (target, kind, source);
CREATE TABLE episode (
    node INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    words INTEGER NOT NULL
);
CREATE INDEX episode_by_turn ON episode (conversation, turn);
CREATE VIRTUAL TABLE body USING fts5(
    owner, user_text, answer_text, tokenize = 'porter unicode61 remove_diacritics 2'
);
"""


@dataclass(frozen=True, slots=True)
class TraceHit:
    """``score`` grows with the match; it compares within one search only. ``names`` are the
    entities that led there."""

    id: str
    score: float
    names: tuple[str, ...] = ()


class GraphStore(Protocol):
    """Episodes, their words, and what they mention. Every search stays inside one owner.

    Nodes: Episode, Entity, Conversation. Edges: NEXT (turn to turn of a conversation), MENTIONS
    (episode to entity), IN (episode to conversation). Thread-safe; raises `StoreError`.
    """

    @property
    def generation(self) -> str: ...

    def write(self, episodes: Sequence[Episode]) -> None: ...

    def search_text(self, owner: Owner, text: str, limit: int) -> list[TraceHit]: ...

    def neighbours(self, owner: Owner, names: Sequence[str], limit: int) -> list[TraceHit]: ...

    def delete(self, owner: Owner, ids: Collection[str]) -> None: ...

    def count(self, owner: Owner | None = None) -> int: ...

    def close(self) -> None: ...


class SqliteTrace:
    """The graph in one SQLite file, with FTS5 over both texts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        schema = f"{_SCHEMA}INSERT INTO meta VALUES ('{uuid.uuid4().hex}');"
        self._database = Database(
            folder / "trace.sqlite", schema=schema, version=SCHEMA_VERSION, fix=REBUILD
        )
        with self._database.read() as db:
            self._generation = str(db.execute("SELECT generation FROM meta").fetchone()[0])

    @property
    def generation(self) -> str:
        return self._generation

    def close(self) -> None:
        self._database.close()

    def write(self, episodes: Sequence[Episode]) -> None:
        """Brings the episodes in, in one transaction; one that is there already is left."""
        with self._database.write() as db:
            for episode in episodes:
                _insert(db, episode)

    def search_text(self, owner: Owner, text: str, limit: int) -> list[TraceHit]:
        """Episodes that share words with ``text``, by BM25 with term frequency 1 (turns are
        short) over at most `MAX_POSTINGS` episodes a word."""
        scores: dict[int, float] = {}
        with self._database.read() as db:
            found = _owner(db, owner)
            if found is None:
                return []
            owner_id, total = found
            for term in search_terms(text):
                rows = db.execute(
                    "SELECT episode.node, episode.words FROM body"
                    " JOIN episode ON episode.node = body.rowid"
                    " WHERE body MATCH ? ORDER BY body.rowid DESC LIMIT ?",
                    (_match(owner_id, term), MAX_POSTINGS),
                ).fetchall()
                if rows:
                    weight = 2.2 * _rarity(_frequency(db, owner_id, rows, total), total)
                    for node, words in rows:
                        gain = weight / (1.3 + 0.015 * words)
                        scores[node] = scores.get(node, 0.0) + gain
            return _hits(db, scores, {}, limit)

    def neighbours(self, owner: Owner, names: Sequence[str], limit: int) -> list[TraceHit]:
        """Episodes that mention one of the entities, and, at `FOLLOW_UP_WEIGHT`, the turn after
        each, which often goes on about it without the name."""
        scores: defaultdict[int, float] = defaultdict(float)
        matched: defaultdict[int, list[str]] = defaultdict(list)
        with self._database.read() as db:
            found = _owner(db, owner)
            if found is None:
                return []
            owner_id, total = found
            for name in names:
                rows = db.execute(
                    "SELECT edge.source, follow.target FROM node"
                    " JOIN edge ON edge.target = node.id AND edge.kind = 'MENTIONS'"
                    " LEFT JOIN edge AS follow"
                    " ON follow.source = edge.source AND follow.kind = 'NEXT'"
                    " WHERE node.owner = ? AND node.kind = 'Entity' AND node.key = ?"
                    " ORDER BY edge.source DESC LIMIT ?",
                    (owner_id, fold(name), MAX_POSTINGS),
                ).fetchall()
                weight = _rarity(min(len(rows), total), total)
                for node, follow_up in rows:
                    for target, share in ((node, 1.0), (follow_up, FOLLOW_UP_WEIGHT)):
                        if target is not None:
                            scores[target] += weight * share
                            if name not in matched[target]:
                                matched[target].append(name)
            return _hits(db, scores, matched, limit)

    def delete(self, owner: Owner, ids: Collection[str]) -> None:
        """Takes the owner's episodes out, with the entities and conversations left bare."""
        with self._database.write() as db:
            found = _owner(db, owner)
            if found is None:
                return
            for id_ in ids:
                _delete(db, found[0], id_)

    def count(self, owner: Owner | None = None) -> int:
        with self._database.read() as db:
            if owner is None:
                return int(db.execute("SELECT count(*) FROM episode").fetchone()[0])
            found = _owner(db, owner)
        return found[1] if found else 0


def _owner(db: sqlite3.Connection, owner: Owner) -> tuple[int, int] | None:
    """The owner's number and how many episodes it has."""
    found = db.execute(
        "SELECT id, episodes FROM owner WHERE tenant = ? AND user = ?", (owner.tenant, owner.user)
    ).fetchone()
    return (int(found[0]), int(found[1])) if found else None


def _frequency(
    db: sqlite3.Connection, owner_id: int, rows: list[tuple[int, int]], total: int
) -> float:
    """How many of the owner's episodes hold a word: what was read, or, where only the newest were,
    what their share of the owner's time makes likely."""
    if len(rows) < MAX_POSTINGS:
        return len(rows)
    first, last = db.execute(
        "SELECT first_episode, last_episode FROM owner WHERE id = ?", (owner_id,)
    ).fetchone()
    likely = len(rows) * (last - first + 1) / (last - rows[-1][0] + 1)
    return float(min(total, likely))


def _rarity(found: float, total: int) -> float:
    """BM25's inverse document frequency, in the form that is never negative."""
    return math.log1p((total - found + 0.5) / (found + 0.5))


def _match(owner_id: int, term: str) -> str:
    quoted = term.replace('"', '""')
    return f'owner : "o{owner_id}" AND {{user_text answer_text}} : "{quoted}"'


def _hits(
    db: sqlite3.Connection,
    scores: dict[int, float],
    matched: dict[int, list[str]],
    limit: int,
) -> list[TraceHit]:
    best = sorted(scores, key=lambda node: (-scores[node], -node))[:limit]
    marks = ", ".join("?" * len(best))
    keys = dict(db.execute(f"SELECT id, key FROM node WHERE id IN ({marks})", best).fetchall())
    return [TraceHit(keys[node], scores[node], tuple(matched.get(node, ()))) for node in best]


def _insert(db: sqlite3.Connection, episode: Episode) -> None:
    owner = episode.owner
    db.execute(
        "INSERT OR IGNORE INTO owner (tenant, user) VALUES (?, ?)", (owner.tenant, owner.user)
    )
    owner_id = db.execute(
        "SELECT id FROM owner WHERE tenant = ? AND user = ?", (owner.tenant, owner.user)
    ).fetchone()[0]
    if db.execute(
        "SELECT 1 FROM node WHERE owner = ? AND kind = 'Episode' AND key = ?",
        (owner_id, episode.id),
    ).fetchone():
        return
    node = _node(db, owner_id, "Episode", episode.id)
    conversation = _node(db, owner_id, "Conversation", episode.conversation)
    _edge(db, node, "IN", conversation)
    _link_turn(db, node, conversation, episode.turn)
    words = len(episode.user_text.split()) + len(episode.answer_text.split())
    db.execute("INSERT INTO episode VALUES (?, ?, ?, ?)", (node, conversation, episode.turn, words))
    db.execute(
        "INSERT INTO body (rowid, owner, user_text, answer_text) VALUES (?, ?, ?, ?)",
        (node, f"o{owner_id}", episode.user_text, episode.answer_text),
    )
    for name in dict.fromkeys(entities(episode.user_text) + entities(episode.answer_text)):
        _edge(db, node, "MENTIONS", _node(db, owner_id, "Entity", name))
    db.execute(
        "UPDATE owner SET episodes = episodes + 1, last_episode = ?,"
        " first_episode = iif(first_episode = 0, ?, first_episode) WHERE id = ?",
        (node, node, owner_id),
    )


def _link_turn(db: sqlite3.Connection, node: int, conversation: int, turn: int) -> None:
    """Puts the turn between its neighbours; turns may come in any order."""
    before = db.execute(
        "SELECT node FROM episode WHERE conversation = ? AND turn <= ?"
        " ORDER BY turn DESC, node DESC LIMIT 1",
        (conversation, turn),
    ).fetchone()
    after = db.execute(
        "SELECT node FROM episode WHERE conversation = ? AND turn > ? ORDER BY turn, node LIMIT 1",
        (conversation, turn),
    ).fetchone()
    if before and after:
        db.execute(
            "DELETE FROM edge WHERE source = ? AND kind = 'NEXT' AND target = ?",
            (before[0], after[0]),
        )
    if before:
        _edge(db, before[0], "NEXT", node)
    if after:
        _edge(db, node, "NEXT", after[0])


def _node(db: sqlite3.Connection, owner_id: int, kind: str, key: str) -> int:
    db.execute(
        "INSERT OR IGNORE INTO node (owner, kind, key) VALUES (?, ?, ?)", (owner_id, kind, key)
    )
    found = db.execute(
        "SELECT id FROM node WHERE owner = ? AND kind = ? AND key = ?", (owner_id, kind, key)
    ).fetchone()
    return int(found[0])


def _edge(db: sqlite3.Connection, source: int, kind: str, target: int) -> None:
    db.execute("INSERT OR IGNORE INTO edge VALUES (?, ?, ?)", (source, kind, target))


def _delete(db: sqlite3.Connection, owner_id: int, id_: str) -> None:
    found = db.execute(
        "SELECT id FROM node WHERE owner = ? AND kind = 'Episode' AND key = ?", (owner_id, id_)
    ).fetchone()
    if found is None:
        return
    node = int(found[0])
    before = db.execute("SELECT source FROM edge WHERE target = ? AND kind = 'NEXT'", (node,))
    after = db.execute("SELECT target FROM edge WHERE source = ? AND kind = 'NEXT'", (node,))
    for (source,), (target,) in zip(before.fetchall(), after.fetchall(), strict=False):
        _edge(db, source, "NEXT", target)
    touched = db.execute(
        "SELECT target FROM edge WHERE source = ? AND kind IN ('MENTIONS', 'IN')", (node,)
    ).fetchall()
    db.execute("DELETE FROM edge WHERE source = ? OR target = ?", (node, node))
    db.execute("DELETE FROM episode WHERE node = ?", (node,))
    db.execute("DELETE FROM body WHERE rowid = ?", (node,))
    db.execute("DELETE FROM node WHERE id = ?", (node,))
    db.executemany(
        "DELETE FROM node WHERE id = ? AND NOT EXISTS (SELECT 1 FROM edge WHERE target = node.id)",
        touched,
    )
    db.execute("UPDATE owner SET episodes = episodes - 1 WHERE id = ?", (owner_id,))
