"""Trace in this process: a graph in one SQLite file, with FTS5 over both texts."""

from __future__ import annotations

import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from memory import trace_facts, trace_text
from memory.atlas import REBUILD
from memory.database import Database
from memory.episode import Episode, Owner
from memory.facts import Fact, Summary
from memory.trace import FOLLOW_UP_WEIGHT, MAX_POSTINGS, TraceHit, rarity, word_score
from memory.trace_rows import drop, find, link, node
from memory.words import entities, fold, search_terms

SCHEMA_VERSION = 2

# Nodes and edges are general, so that new kinds need no new tables.
_EPISODES = """
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
"""


class SqliteTrace:
    """The graph in one SQLite file, with FTS5 over both texts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        generation = f"INSERT INTO meta VALUES ('{uuid.uuid4().hex}');"
        self._database = Database(
            folder / "trace.sqlite",
            schema=f"{_EPISODES}{trace_text.SCHEMA}{trace_facts.SCHEMA}{generation}",
            version=SCHEMA_VERSION,
            fix=REBUILD,
            upgrades=[trace_facts.SCHEMA],
        )
        with self._database.read() as db:
            self._generation = str(db.execute("SELECT generation FROM meta").fetchone()[0])

    @property
    def generation(self) -> str:
        return self._generation

    def close(self) -> None:
        self._database.close()

    def verify(self) -> None:
        """Nothing: the folder is this process's alone."""

    def write(self, episodes: Sequence[Episode]) -> None:
        with self._database.write() as db:
            for episode in episodes:
                _insert(db, episode)

    def write_facts(self, facts: Sequence[Fact]) -> None:
        with self._database.write() as db:
            for fact in facts:
                trace_facts.write_fact(db, _owner_id(db, fact.owner), fact)

    def write_summaries(self, summaries: Sequence[Summary]) -> None:
        with self._database.write() as db:
            for summary in summaries:
                trace_facts.write_summary(db, _owner_id(db, summary.owner), summary)

    def search_text(self, owner: Owner, text: str, limit: int) -> list[TraceHit]:
        scores: dict[int, float] = {}
        with self._database.read() as db:
            found = _owner(db, owner)
            if found is None:
                return []
            owner_id, total = found
            # A long list of the owner's own episodes costs more to intersect than it saves.
            alone = 2 * total >= trace_text.episodes(db)
            for term in search_terms(text):
                rows = trace_text.postings(db, owner_id, term, intersect=not alone)
                if rows:
                    found_in = trace_text.frequency(db, owner_id, rows, total)
                    weight = rarity(found_in, total)
                    for number, words in rows:
                        gain = word_score(weight, words)
                        scores[number] = scores.get(number, 0.0) + gain
            return _hits(db, scores, {}, limit)

    def neighbours(self, owner: Owner, names: Sequence[str], limit: int) -> list[TraceHit]:
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
                weight = rarity(min(len(rows), total), total)
                for number, follow_up in rows:
                    for target, share in ((number, 1.0), (follow_up, FOLLOW_UP_WEIGHT)):
                        if target is not None:
                            scores[target] += weight * share
                            if name not in matched[target]:
                                matched[target].append(name)
            return _hits(db, scores, matched, limit)

    def around(self, owner: Owner, id_: str, reach: int) -> list[str]:
        with self._database.read() as db:
            found = _owner(db, owner)
            number = find(db, (found[0], "Episode", id_)) if found else None
            rows = db.execute(
                "WITH RECURSIVE before (node, far) AS (SELECT ?1, 0"
                " UNION ALL SELECT edge.source, far + 1 FROM before"
                " JOIN edge ON edge.target = before.node AND edge.kind = 'NEXT' WHERE far < ?2),"
                " after (node, far) AS (SELECT ?1, 0"
                " UNION ALL SELECT edge.target, far + 1 FROM after"
                " JOIN edge ON edge.source = after.node AND edge.kind = 'NEXT' WHERE far < ?2)"
                " SELECT node.key FROM (SELECT node, -far AS place FROM before"
                " UNION SELECT node, far FROM after) AS walk"
                " JOIN node ON node.id = walk.node ORDER BY walk.place",
                (number, reach),
            ).fetchall()
        return [key for (key,) in rows if key != id_]

    def facts_about(
        self,
        owner: Owner,
        names: Sequence[str],
        limit: int,
        *,
        valid_at: datetime,
        known_at: datetime,
    ) -> list[Fact]:
        times = (valid_at, known_at)
        with self._database.read() as db:
            found = _owner(db, owner)
            return (
                trace_facts.facts_about(db, owner, found[0], names, limit, times) if found else []
            )

    def history(self, owner: Owner, id_: str) -> list[Fact]:
        with self._database.read() as db:
            found = _owner(db, owner)
            return trace_facts.history(db, owner, found[0], id_) if found else []

    def summaries_of(self, owner: Owner, ids: Collection[str]) -> dict[str, str]:
        with self._database.read() as db:
            found = _owner(db, owner)
            return trace_facts.summaries_of(db, found[0], ids) if found else {}

    def delete(self, owner: Owner, ids: Collection[str]) -> None:
        with self._database.write() as db:
            found = _owner(db, owner)
            if found is None:
                return
            for id_ in ids:
                _delete(db, found[0], id_)
                trace_facts.delete_learnt(db, found[0], id_)

    def scrub(self) -> None:
        with self._database.write() as db:
            # The index keeps the words of a deleted row until its segments are merged.
            db.execute("INSERT INTO body (body) VALUES ('optimize')")
        self._database.scrub()

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


def _hits(
    db: sqlite3.Connection,
    scores: dict[int, float],
    matched: dict[int, list[str]],
    limit: int,
) -> list[TraceHit]:
    best = sorted(scores, key=lambda number: (-scores[number], -number))[:limit]
    marks = ", ".join("?" * len(best))
    keys = dict(db.execute(f"SELECT id, key FROM node WHERE id IN ({marks})", best).fetchall())
    return [TraceHit(keys[one], scores[one], tuple(matched.get(one, ()))) for one in best]


def _owner_id(db: sqlite3.Connection, owner: Owner) -> int:
    db.execute(
        "INSERT OR IGNORE INTO owner (tenant, user) VALUES (?, ?)", (owner.tenant, owner.user)
    )
    found = _owner(db, owner)
    assert found is not None
    return found[0]


def _insert(db: sqlite3.Connection, episode: Episode) -> None:
    owner_id = _owner_id(db, episode.owner)
    if find(db, (owner_id, "Episode", episode.id)) is not None:
        return
    number = node(db, (owner_id, "Episode", episode.id))
    conversation = node(db, (owner_id, "Conversation", episode.conversation))
    link(db, number, "IN", conversation)
    _link_turn(db, number, conversation, episode.turn)
    words = len(episode.user_text.split()) + len(episode.answer_text.split())
    db.execute(
        "INSERT INTO episode VALUES (?, ?, ?, ?)", (number, conversation, episode.turn, words)
    )
    db.execute(
        "INSERT INTO body (rowid, owner, user_text, answer_text) VALUES (?, ?, ?, ?)",
        (number, f"o{owner_id}", episode.user_text, episode.answer_text),
    )
    for name in dict.fromkeys(entities(episode.user_text) + entities(episode.answer_text)):
        link(db, number, "MENTIONS", node(db, (owner_id, "Entity", name)))
    db.execute(
        "UPDATE owner SET episodes = episodes + 1, last_episode = ?,"
        " first_episode = iif(first_episode = 0, ?, first_episode) WHERE id = ?",
        (number, number, owner_id),
    )


def _link_turn(db: sqlite3.Connection, number: int, conversation: int, turn: int) -> None:
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
        link(db, before[0], "NEXT", number)
    if after:
        link(db, number, "NEXT", after[0])


def _delete(db: sqlite3.Connection, owner_id: int, id_: str) -> None:
    number = find(db, (owner_id, "Episode", id_))
    if number is None:
        return
    before = db.execute("SELECT source FROM edge WHERE target = ? AND kind = 'NEXT'", (number,))
    after = db.execute("SELECT target FROM edge WHERE source = ? AND kind = 'NEXT'", (number,))
    for (source,), (target,) in zip(before.fetchall(), after.fetchall(), strict=False):
        link(db, source, "NEXT", target)
    db.execute("DELETE FROM episode WHERE node = ?", (number,))
    db.execute("DELETE FROM body WHERE rowid = ?", (number,))
    drop(db, number)
    db.execute("UPDATE owner SET episodes = episodes - 1 WHERE id = ?", (owner_id,))
