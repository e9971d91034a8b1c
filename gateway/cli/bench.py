"""``kiki bench``: measure this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.bench.report import Report


@click.group("bench")
def command() -> None:
    """Measure this machine; each benchmark prints one object with --json."""


@command.command("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--requests", type=click.IntRange(5), default=60, show_default=True)
@click.option("--episodes", type=click.IntRange(100), default=10_000, show_default=True)
def pipeline(as_json: bool, requests: int, episodes: int) -> None:
    """The gateway's own time, routing, recall, start, memory, command line, tokens a second."""
    from gateway.bench.pipeline import measure

    _show(lambda progress: measure(requests, episodes, progress), as_json)


def _show(run: Callable[[Callable[[str, int, int], None]], Report], as_json: bool) -> None:
    from gateway.cli.progress import counting

    with counting() as progress:
        report = run(progress)
    click.echo(json.dumps(report.to_dict()) if as_json else report.to_text())
