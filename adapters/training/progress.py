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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=steps, loss="-", speed="-")

        def report(step: int, loss: float) -> None:
            tracked = progress.tasks[0]
            if not tracked.completed:
                progress.reset(task, completed=step - 1)  # a resumed run starts in the middle
            speed = tracked.finished_speed or tracked.speed
            shown_speed = f"{speed:.2f}" if speed else "-"
            progress.update(task, completed=step, loss=f"{loss:.3f}", speed=shown_speed)

        yield report
