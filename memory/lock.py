"""One owner process a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kiki.errors import StoreLockedError


class FolderLock:
    """An advisory lock (flock) on ``folder/lock``; the kernel frees it when the process dies.

    Raises `StoreLockedError`, naming the folder and the owner's process id.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreLockedError(
                f"The memory folder {folder} is in use by process {owner}.",
                fix="Stop that process, or give this one another data folder.",
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._file)


def owner_of(folder: Path) -> int | None:
    """The process that holds the folder's lock, or None where none does."""
    try:
        file = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return int(os.read(file, 32) or 0)
    finally:
        os.close(file)
    return None
