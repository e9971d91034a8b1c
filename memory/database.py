"""A SQLite file as the memory uses it: WAL, one writer, one reader, errors with names."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreError, StoreUnavailableError

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_stamp(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def from_stamp(stamp: int) -> datetime:
    return _EPOCH + stamp * _MICROSECOND


def to_half(vector: NDArray[np.float32]) -> bytes:
    """Half precision: the cosine of a 768-d vector moves by less than 1e-3."""
    return vector.astype("<f2").tobytes()


def to_vector(blob: bytes) -> NDArray[np.float32]:
    return np.frombuffer(blob, "<f2").astype(np.float32)


class Database:
    """One SQLite file. ``write()`` and ``read()`` give a connection to one thread at a time.

    ``schema`` is run when the file is new; ``version`` is kept in ``user_version``.
    ``upgrades[i]`` brings a file of format i + 1 to i + 2. Raises `StoreError` for a file that is
    newer than this program, older than its upgrades reach, or damaged.
    """

    def __init__(
        self, path: Path, *, schema: str, version: int, fix: str, upgrades: Sequence[str] = ()
    ) -> None:
        self.path = path
        self._fix = fix
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        with self._named_errors():
            self._writer = self._connect()
            try:
                self._prepare(schema, version, upgrades)
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # On macOS a plain fsync stops at the drive's own cache; elsewhere these do nothing.
            connection.execute("PRAGMA fullfsync=1")
            connection.execute("PRAGMA checkpoint_fullfsync=1")
            connection.execute("PRAGMA secure_delete=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, schema: str, version: int, upgrades: Sequence[str]) -> None:
        found = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if found > version:
            raise StoreError(
                f"{self.path} has format {found}; this program knows formats up to {version}.",
                fix="Use the newer kiki that wrote it, or another data folder.",
            )
        if found == version:
            return
        if 0 < found < version - len(upgrades):
            raise StoreError(
                f"{self.path} has format {found}; this program reads {version}.", fix=self._fix
            )
        if found:
            # Formats before this one left deleted texts in free pages. First, because a file that
            # has the new format is not looked at again.
            self._writer.execute("VACUUM")
        script = "".join(upgrades[found - version :]) if found else schema
        self._writer.executescript(f"BEGIN IMMEDIATE;{script}PRAGMA user_version={version};COMMIT;")

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction: kept when the block ends (on the disk if ``durable``, else only against
        the death of the process), undone when it raises."""
        with self._write_lock, self._named_errors():
            self._writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._named_errors():
            yield self._reader

    def scrub(self) -> bool:
        """Takes what was deleted out of the files: `secure_delete` has put zeros over it, which
        are moved from the write-ahead log into the database, and the log is emptied. False while
        another process reads the file."""
        with self._write_lock, self._read_lock, self._named_errors():
            busy = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return not busy

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise StoreError(f"{self.path} is damaged ({error}).", fix=self._fix) from error
            if code == sqlite3.SQLITE_FULL:
                raise StoreError(
                    f"The disk is full: {self.path} can't grow.", fix="Free some space."
                ) from error
            raise StoreUnavailableError(f"{self.path} can't be used: {error}.") from error
