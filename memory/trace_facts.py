"""Facts and summaries of the graph in SQLite; each function runs in its caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime

from memory.database import from_stamp, to_stamp
from memory.episode import Owner
from memory.facts import Fact, Summary
from memory.trace_rows import drop, drop_bare, find, link, node
from memory.words import fold

SCHEMA = """
CREATE TABLE fact (
    node INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    entities TEXT NOT NULL,
    source TEXT NOT NULL,
    supersedes TEXT NOT NULL,
    valid_from INTEGER NOT NULL,
    valid_to INTEGER,
    recorded_from INTEGER NOT NULL,
    recorded_to INTEGER
);
CREATE TABLE summary (node INTEGER PRIMARY KEY, text TEXT NOT NULL, created INTEGER NOT NULL);
"""
_COLUMNS = (
    "node.key, fact.text, fact.entities, fact.source, fact.supersedes,"
    " fact.valid_from, fact.valid_to, fact.recorded_from, fact.recorded_to"
)
_HELD = (
    "fact.valid_from <= :valid_at AND ifnull(fact.valid_to > :valid_at, 1)"
    " AND fact.recorded_from <= :known_at AND ifnull(fact.recorded_to > :known_at, 1)"
)


def write_fact(db: sqlite3.Connection, owner_id: int, fact: Fact) -> None:
    number = node(db, (owner_id, "Fact", fact.id))
    former = db.execute(
        "SELECT target FROM edge WHERE source = ? AND kind IN ('ABOUT', 'SUPERSEDES')", (number,)
    ).fetchall()
    db.execute(
        "DELETE FROM edge WHERE (source = :fact AND kind IN ('ABOUT', 'SUPERSEDES'))"
        " OR (target = :fact AND kind = 'CAUSES')",
        {"fact": number},
    )
    db.execute(
        "REPLACE INTO fact VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            fact.text,
            json.dumps(fact.entities),
            fact.source_episode,
            json.dumps(fact.supersedes),
            *map(_stamp, (fact.valid_from, fact.valid_to, fact.recorded_from, fact.recorded_to)),
        ),
    )
    for name in fact.entities:
        link(db, number, "ABOUT", node(db, (owner_id, "Entity", fold(name))))
    for other in fact.supersedes:
        link(db, number, "SUPERSEDES", node(db, (owner_id, "Fact", other)))
    source = find(db, (owner_id, "Episode", fact.source_episode))
    if source is not None:
        link(db, source, "CAUSES", number)
    drop_bare(db, [target for (target,) in former])


def write_summary(db: sqlite3.Connection, owner_id: int, summary: Summary) -> None:
    number = node(db, (owner_id, "Summary", summary.id))
    db.execute("DELETE FROM edge WHERE source = ? AND kind = 'SUMMARISES'", (number,))
    db.execute(
        "REPLACE INTO summary VALUES (?, ?, ?)", (number, summary.text, to_stamp(summary.created))
    )
    for member in summary.members:
        episode = find(db, (owner_id, "Episode", member))
        if episode is not None:
            link(db, number, "SUMMARISES", episode)


def facts_about(
    db: sqlite3.Connection,
    owner: Owner,
    owner_id: int,
    names: Sequence[str],
    limit: int,
    times: tuple[datetime, datetime],
) -> list[Fact]:
    """``times`` are those that the facts held at, and were known at."""
    keys = {f"name{number}": fold(name) for number, name in enumerate(names)}
    rows = db.execute(
        f"SELECT DISTINCT {_COLUMNS} FROM node AS entity"
        " JOIN edge ON edge.target = entity.id AND edge.kind = 'ABOUT'"
        " JOIN fact ON fact.node = edge.source JOIN node ON node.id = fact.node"
        " WHERE entity.owner = :owner AND entity.kind = 'Entity'"
        f" AND entity.key IN ({', '.join(f':{key}' for key in keys)}) AND {_HELD}"
        " ORDER BY fact.valid_from DESC, node.key DESC LIMIT :limit",
        {
            "owner": owner_id,
            "limit": limit,
            "valid_at": to_stamp(times[0]),
            "known_at": to_stamp(times[1]),
            **keys,
        },
    )
    return [_to_fact(owner, row) for row in rows]


def history(db: sqlite3.Connection, owner: Owner, owner_id: int, id_: str) -> list[Fact]:
    rows = db.execute(
        "WITH RECURSIVE chain (node) AS ("
        " SELECT id FROM node WHERE owner = ? AND kind = 'Fact' AND key = ?"
        " UNION SELECT edge.target FROM chain"
        " JOIN edge ON edge.source = chain.node AND edge.kind = 'SUPERSEDES')"
        f" SELECT {_COLUMNS} FROM chain JOIN fact USING (node) JOIN node ON node.id = fact.node"
        " ORDER BY fact.recorded_from DESC, node.key DESC",
        (owner_id, id_),
    )
    return [_to_fact(owner, row) for row in rows]


def summaries_of(db: sqlite3.Connection, owner_id: int, ids: Collection[str]) -> dict[str, str]:
    rows = db.execute(
        "SELECT episode.key, summary.key FROM node AS episode"
        " JOIN edge ON edge.target = episode.id AND edge.kind = 'SUMMARISES'"
        " JOIN node AS summary ON summary.id = edge.source"
        f" WHERE episode.owner = ? AND episode.kind = 'Episode'"
        f" AND episode.key IN ({', '.join('?' * len(ids))}) ORDER BY summary.key",
        (owner_id, *ids),
    )
    return dict(rows.fetchall())


def delete_learnt(db: sqlite3.Connection, owner_id: int, id_: str) -> None:
    """Takes out the fact or the summary of this id, if there is one."""
    for kind, table in (("Fact", "fact"), ("Summary", "summary")):
        number = find(db, (owner_id, kind, id_))
        if number is not None:
            db.execute(f"DELETE FROM {table} WHERE node = ?", (number,))
            drop(db, number)


def _to_fact(owner: Owner, row: Sequence[str]) -> Fact:
    id_, text, entities, source, supersedes, *stamps = row
    valid_from, valid_to, recorded_from, recorded_to = stamps
    return Fact(
        id=id_,
        owner=owner,
        text=text,
        entities=tuple(json.loads(entities)),
        source_episode=source,
        valid_from=from_stamp(int(valid_from)),
        valid_to=None if valid_to is None else from_stamp(int(valid_to)),
        recorded_from=from_stamp(int(recorded_from)),
        recorded_to=None if recorded_to is None else from_stamp(int(recorded_to)),
        supersedes=tuple(json.loads(supersedes)),
    )


def _stamp(time: datetime | None) -> int | None:
    return None if time is None else to_stamp(time)
