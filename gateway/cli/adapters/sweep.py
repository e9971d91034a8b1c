"""``kiki adapters sweep``."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.adapters.measured import MeasuredCommand

if TYPE_CHECKING:
    from adapters.sweep import Sweep

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)
_CLOSE = 1


@click.command("sweep", cls=MeasuredCommand)
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--min-angle", type=click.FloatRange(0, 90), default=30.0, show_default=True,
              help="A pair under it counts as close.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=_OUT, help="Write the JSON to this file too.")
@click.option("--svg", type=_OUT, help="Draw the matrix as a picture.")
def command(
    folder: Path, min_angle: float, as_json: bool, out: Path | None, svg: Path | None
) -> None:
    """The angle between every two adapters in DIR, as a table. Sick ones are left out, and named.

    \b
    Exit codes:
      0  every pair is at least --min-angle apart
      1  a pair is closer
      4  not measured: wrong arguments, or fewer than two adapters
    """
    from adapters.folders import adapters_in
    from adapters.heatmap import heatmap
    from adapters.sweep import sweep
    from gateway.cli.progress import counting
    from kiki.errors import AdapterError

    with counting() as progress:
        found = sweep(adapters_in(folder), progress=progress)
    content = json.dumps(_as_dict(found, min_angle), indent=2)
    if out:
        out.write_text(content + "\n")
    if svg:
        title = "Degrees between the adapters' updates"
        svg.write_text(heatmap(found.names, found.matrix(), title))
    if as_json:
        click.echo(content)
    else:
        _print(found, min_angle)
    closest = found.closest
    if closest is None:
        raise AdapterError(f"{folder} has no two healthy adapters that share a module.")
    if closest.degrees < min_angle:
        raise click.exceptions.Exit(_CLOSE)


def _as_dict(found: Sweep, min_angle: float) -> dict[str, Any]:
    closest = found.closest
    return {
        "adapters": found.names,
        "pairs": [asdict(pair) for pair in found.pairs],
        "closest": None if closest is None else asdict(closest),
        "min_angle": min_angle,
        "left_out": [{"name": one.name, "reason": one.reason} for one in found.left_out],
    }


def _print(found: Sweep, min_angle: float) -> None:
    width = max((len(name) for name in found.names), default=0) + 4
    if width + 6 * len(found.names) <= shutil.get_terminal_size((100, 24)).columns:
        _print_matrix(found, width, min_angle)
    else:
        _print_nearest(found, width, min_angle)
    for refusal in found.left_out:
        click.echo(f"left out: {refusal.name}: {refusal.reason}")
    if found.closest:
        one = found.closest
        click.echo(f"closest: {one.a} and {one.b}, {one.degrees:.1f} degrees")


def _print_matrix(found: Sweep, width: int, min_angle: float) -> None:
    numbers = range(1, len(found.names) + 1)
    click.echo(" " * width + "".join(f"{number:>6}" for number in numbers))
    for number, name, row in zip(numbers, found.names, found.matrix(), strict=True):
        cells = "".join(_cell(value, min_angle) for value in row)
        click.echo(f"{number:>2} {name:<{width - 3}}{cells}")


def _print_nearest(found: Sweep, width: int, min_angle: float) -> None:
    click.echo("Each adapter's nearest one (the whole table is in --json and --svg):")
    for name, row in zip(found.names, found.matrix(), strict=True):
        near = min(
            ((value, other) for value, other in zip(row, found.names, strict=True)
             if value is not None), default=None,
        )  # fmt: skip
        text = "shares nothing with the others" if near is None else \
            f"{_cell(near[0], min_angle)}  {near[1]}"  # fmt: skip
        click.echo(f"{name:<{width}}{text}")


def _cell(value: float | None, min_angle: float) -> str:
    if value is None:
        return f"{'-':>6}"
    return click.style(f"{value:>6.1f}", fg="red" if value < min_angle else None)
