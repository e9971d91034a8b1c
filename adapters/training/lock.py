"""One training at a time: two share the machine's memory and neither ends well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kiki.errors import AdapterError


@contextmanager
def training_lock(folder: Path, domain: str) -> Iterator[None]:
    """Hold ``folder``'s lock. Raises AdapterError, naming the other run, where one holds it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / ".training"
    lock = FileLock(folder / ".training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        who = holder.read_text("utf-8").strip() if holder.is_file() else "another process"
        raise AdapterError(
            f"Adapters are trained one after the other, and {who} is being trained.",
            fix="Wait until it ends, then start this one.",
        ) from error
    try:
        holder.write_text(f"{domain} (process {os.getpid()})\n", "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
