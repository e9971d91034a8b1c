"""The bar of a training run, on stderr: steps, loss, speed and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, float], None]
"""Called after each step with its number and its loss."""


def report_nothing(step: int, loss: float) -> None:
    """For runs that nobody watches."""


@contextmanager
def training_bar(label: str, steps: int, *, shown: bool) -> Iterator[Report]:
    """Give a ``Report`` that moves the bar; one that does nothing where it isn't shown."""
    if not shown:
        yield report_nothing
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[speed]} it/s"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task(label, total=steps, loss="-", speed="-")
    started = False

    def report(step: int, loss: float) -> None:
        nonlocal started
        if not started:  # not before the first step: loading the base shows bars of its own
            started = True
            progress.reset(task, completed=step - 1)  # a resumed run starts in the middle
            progress.start()
        speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
        shown_speed = f"{speed:.2f}" if speed else "-"
        progress.update(task, completed=step, loss=f"{loss:.3f}", speed=shown_speed)

    try:
        yield report
    finally:
        progress.stop()
