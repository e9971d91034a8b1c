"""Progress bars for work that takes a while, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def pulling() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callback ``(name, bytes done, bytes in all)`` that shows a bar for each file."""
    with _bars(bytes_shown=True) as update:
        yield update


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callback ``(name, done, all)`` that shows a bar for each name."""
    with _bars(bytes_shown=False) as update:
        yield update


@contextmanager
def _bars(*, bytes_shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if bytes_shown else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield update
