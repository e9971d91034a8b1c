"""The journal's tables of what was learnt: facts, conflicts, summaries, and uses."""

from __future__ import annotations

# A fact's ``revision`` is new at every change of the row: what follows it sees each change. It is
# counted apart, because the highest row may be deleted.
SCHEMA = """
CREATE TABLE fact_revision (value INTEGER NOT NULL);
INSERT INTO fact_revision VALUES (0);
CREATE TABLE fact (
    revision INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    text TEXT NOT NULL,
    entities TEXT NOT NULL,
    source TEXT NOT NULL,
    valid_from INTEGER NOT NULL,
    valid_to INTEGER,
    recorded_from INTEGER NOT NULL,
    recorded_to INTEGER,
    supersedes TEXT NOT NULL,
    ended_by TEXT,
    embedding TEXT,
    vector BLOB
);
CREATE INDEX fact_by_owner ON fact (tenant, user, revision);
CREATE INDEX fact_by_source ON fact (source);
CREATE INDEX fact_by_end ON fact (ended_by) WHERE ended_by IS NOT NULL;
CREATE TABLE conflict (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    first TEXT NOT NULL,
    second TEXT NOT NULL,
    found INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, first, second)
) WITHOUT ROWID;
CREATE TABLE summary (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    text TEXT NOT NULL,
    made_by TEXT NOT NULL,
    created INTEGER NOT NULL,
    embedding TEXT,
    vector BLOB
);
CREATE INDEX summary_by_owner ON summary (tenant, user);
CREATE TABLE summary_member (
    summary TEXT NOT NULL,
    episode TEXT NOT NULL,
    PRIMARY KEY (summary, episode)
) WITHOUT ROWID;
CREATE INDEX summary_by_member ON summary_member (episode);
CREATE TABLE recall_use (episode TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""
