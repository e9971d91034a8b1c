"""Full text of the graph in SQLite (FTS5); each function runs in its caller's transaction."""

from __future__ import annotations

import sqlite3

from memory.stems import TOKENIZER
from memory.trace import MAX_POSTINGS

# The owner is a word of its own column, so that a search among many owners walks one's alone.
SCHEMA = f"""
CREATE VIRTUAL TABLE body USING fts5(
    owner, user_text, answer_text, tokenize = '{TOKENIZER}'
);
"""


def episodes(db: sqlite3.Connection) -> int:
    """How many there are of all owners."""
    return int(db.execute("SELECT ifnull(sum(episodes), 0) FROM owner").fetchone()[0])


def postings(
    db: sqlite3.Connection, owner_id: int, term: str, *, intersect: bool
) -> list[tuple[int, int]]:
    """The owner's newest episodes that hold the term, with their numbers of words, at most
    `MAX_POSTINGS`. Without ``intersect`` the term's list alone is walked, which is the shorter
    way where most of it is the owner's."""
    quoted = term.replace('"', '""')
    wanted = f'{{user_text answer_text}} : "{quoted}"'
    if intersect:
        wanted = f'owner : "o{owner_id}" AND {wanted}'
    return db.execute(
        "SELECT episode.node, episode.words FROM body"
        " JOIN episode ON episode.node = body.rowid JOIN node ON node.id = body.rowid"
        " WHERE body MATCH ? AND node.owner = ? ORDER BY body.rowid DESC LIMIT ?",
        (wanted, owner_id, MAX_POSTINGS),
    ).fetchall()


def frequency(
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
