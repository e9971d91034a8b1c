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
INSERT INTO episode VALUES (
    1, 'e1', 'acme', 'alice', 'c1', 0, 'My dog is Rex.', 'A fine name.', '["chat-fr"]',
    '[["chat-fr", 0.75]]', 1777636800000000, 'complete', NULL, NULL
);
PRAGMA user_version=1;
