"""The words of a text as SQLite's full text indexes them."""

from __future__ import annotations

import sqlite3
import threading

TOKENIZER = "porter unicode61 remove_diacritics 2"
"""Folds case and accents, and takes English endings off (Porter 1980)."""


class Stemmer:
    """FTS5's own tokenizer, read back from an index in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(f"CREATE VIRTUAL TABLE text USING fts5(body, tokenize = '{TOKENIZER}')")
        self._db.execute("CREATE VIRTUAL TABLE word USING fts5vocab(text, 'row')")

    def stems(self, text: str) -> list[str]:
        """The different stems of a text, sorted."""
        with self._lock, self._db:
            self._db.execute("INSERT INTO text VALUES (?)", (text,))
            found = [row[0] for row in self._db.execute("SELECT term FROM word ORDER BY term")]
            self._db.execute("DELETE FROM text")
        return found

    def close(self) -> None:
        self._db.close()
