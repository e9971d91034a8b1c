"""``kiki adapters angle``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from adapters.angle import AngleReport

_BAR = 30  # cells for 90 degrees
_PATH = click.Path(exists=True, path_type=Path)


@click.command("angle")
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(a: Path, b: Path, as_json: bool) -> None:
    """The angle between the updates of the adapters A and B, from 0 (alike) to 90 degrees.

    By kind of module, over all layers that both adapt; the mean over the kinds is what the gate
    looks at.
    """
    from adapters.angle import angles
    from adapters.forms import read_lora

    report = angles(read_lora(a), read_lora(b))
    if as_json:
        click.echo(json.dumps(as_dict(report), indent=2))
    else:
        _print(report)


def as_dict(report: AngleReport) -> dict[str, Any]:
    """The report for JSON; an angle that isn't there (NaN) is null."""
    experts = {
        module: [None if angle != angle else angle for angle in angles]
        for module, angles in report.experts.items()
    }
    return {**asdict(report), "experts": experts}


def _print(report: AngleReport) -> None:
    click.echo(
        f"{report.a} and {report.b}: {report.mean:.1f} degrees, the mean over "
        f"{len(report.kinds)} kinds of modules (0: alike, 90: unrelated)\n"
    )
    width = max(len(kind.kind) for kind in report.kinds)
    for kind in report.kinds:
        cells = round(kind.degrees / 90 * _BAR)
        bar = "█" * cells + "·" * (_BAR - cells)
        click.echo(
            f"{kind.kind:<{width}}  {kind.degrees:>5.1f}  {bar}  {kind.modules:>3} modules, "
            f"lowest {kind.lowest.degrees:.1f} in layer {kind.lowest.module.split('.')[1]}"
        )
    if lowest := report.lowest_expert:
        click.echo(f"\nlowest expert: {lowest.degrees:.1f} in {lowest}")
    if report.skipped:
        click.echo(f"\nonly in one, or of another shape: {_some(report.skipped)}")
    if report.idle:
        click.echo(f"\nan update of zero: {_some(report.idle)}")


def _some(modules: tuple[str, ...]) -> str:
    more = f" and {len(modules) - 5} more" if len(modules) > 5 else ""
    return ", ".join(modules[:5]) + more
