"""Nodes and edges of the graph in SQLite."""

from __future__ import annotations

import sqlite3

Key = tuple[int, str, str]
"""An owner's number, the node's kind, and its key."""


def node(db: sqlite3.Connection, key: Key) -> int:
    """The node's number; made where there is none."""
    db.execute("INSERT OR IGNORE INTO node (owner, kind, key) VALUES (?, ?, ?)", key)
    found = find(db, key)
    assert found is not None
    return found


def find(db: sqlite3.Connection, key: Key) -> int | None:
    found = db.execute(
        "SELECT id FROM node WHERE owner = ? AND kind = ? AND key = ?", key
    ).fetchone()
    return int(found[0]) if found else None


def link(db: sqlite3.Connection, source: int, kind: str, target: int) -> None:
    db.execute("INSERT OR IGNORE INTO edge VALUES (?, ?, ?)", (source, kind, target))


def drop(db: sqlite3.Connection, number: int) -> None:
    """Takes a node out with its edges, and the nodes that are then reached by nothing; what has
    rows of its own (an episode, a fact, a summary) stays for itself."""
    targets = db.execute("SELECT target FROM edge WHERE source = ?", (number,)).fetchall()
    db.execute("DELETE FROM edge WHERE source = ? OR target = ?", (number, number))
    db.execute("DELETE FROM node WHERE id = ?", (number,))
    drop_bare(db, [target for (target,) in targets])


def drop_bare(db: sqlite3.Connection, numbers: list[int]) -> None:
    db.executemany(
        "DELETE FROM node WHERE id = ? AND NOT EXISTS (SELECT 1 FROM edge WHERE target = node.id)"
        " AND NOT EXISTS (SELECT 1 FROM episode WHERE node = node.id)"
        " AND NOT EXISTS (SELECT 1 FROM fact WHERE node = node.id)"
        " AND NOT EXISTS (SELECT 1 FROM summary WHERE node = node.id)",
        [(number,) for number in numbers],
    )
