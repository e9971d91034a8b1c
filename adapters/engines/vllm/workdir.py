"""A process's own folder on the RAM disk, and the end of those that dead processes left."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO

from kiki.errors import SettingsError

log = logging.getLogger("kiki.adapters")

LOCK_FILE = ".lock"


class WorkDir:
    """A folder under ``parent`` that this process holds by a lock, which ends when it does.

    Only its user can look into ``parent``. Folders whose lock nobody holds are removed.
    """

    def __init__(self, parent: Path) -> None:
        """Raises SettingsError where ``parent`` can't be made, or belongs to someone else."""
        parent = parent.absolute()
        self.parent = parent
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = parent.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise SettingsError(
                    f"The work folder {parent} is a link or belongs to another user.",
                    fix="Remove it, or name another one with vllm_work_dir.",
                )
            parent.chmod(0o700)
            with _locked(parent / LOCK_FILE):  # nobody takes a new folder for a left one
                self.left_behind = _remove_unlocked(parent)
                self.path = Path(tempfile.mkdtemp(dir=parent, prefix="run-"))
                self._lock = _locked(self.path / LOCK_FILE)
        except OSError as error:
            raise SettingsError(
                f"The work folder {parent} can't be used: {error}.",
                fix="Name another one with vllm_work_dir.",
            ) from error

    def close(self) -> None:
        """Remove the folder with all that lies in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _locked(path: Path) -> IO[bytes]:
    file = path.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _remove_unlocked(parent: Path) -> int:
    """Remove the folders of processes that are gone; returns how many."""
    removed = 0
    for folder in parent.glob("run-*"):
        try:
            with (folder / LOCK_FILE).open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except FileNotFoundError:
            pass
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed %s, left by a process that is gone", folder)
        removed += 1
    return removed
