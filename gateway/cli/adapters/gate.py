"""``kiki adapters gate``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.adapters.measured import MeasuredCommand

if TYPE_CHECKING:
    from adapters.gate import Comparison, GateReport, Limits

_PATH = click.Path(exists=True, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COLOURS = {"pass": "green", "angle": "yellow", "win-rate": "yellow"}


@click.command("gate", cls=MeasuredCommand)
@click.argument("new", type=_PATH)
@click.option("--prior-dir", type=_FOLDER, help="A folder of adapters that were there before.")
@click.option("--prior", "priors", multiple=True, type=_PATH, help="One of them; repeatable.")
@click.option("--win-rate-drop", "drop", type=float, help="How far the win rate fell: 0.05.")
@click.option("--win-rates", type=_FILE, help="JSON: each prior's name to its drop, or to "
              '{"before": 0.6, "after": 0.5}.')  # fmt: skip
@click.option("--base", help="The base model that the new adapter must be for.")
@click.option("--min-angle", type=click.FloatRange(0, 90), default=30.0, show_default=True,
              help="The smallest mean angle that passes, in degrees.")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(0, 1), default=0.03, show_default=True,
              help="The largest drop of the win rate that passes.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    new: Path,
    prior_dir: Path | None,
    priors: tuple[Path, ...],
    drop: float | None,
    win_rates: Path | None,
    base: str | None,
    min_angle: float,
    max_drop: float,
    as_json: bool,
) -> None:
    """May the adapter NEW join those that were there before? Health first, then forgetting.

    An adapter of the same name in --prior-dir is left out: NEW takes its place.

    \b
    Exit codes:
      0  pass
      1  a mean angle under 30 degrees; the win rate didn't drop, or wasn't given
      2  a win rate dropped by over 0.03; with 1's condition on the same prior: roll back
      3  the new adapter is unhealthy, or can't be read
      4  not measured: wrong arguments, or no prior could be compared
    """
    from adapters.folders import adapters_in, name_of
    from adapters.gate import Limits, read_drops, run_gate
    from gateway.cli.progress import counting
    from kiki.errors import AdapterError

    if math.isnan(min_angle) or math.isnan(max_drop):
        raise click.UsageError("--min-angle and --max-drop take numbers.")
    inside = adapters_in(prior_dir) if prior_dir else []
    if prior_dir and not inside:
        raise AdapterError(f"{prior_dir} holds no adapter.", fix="Correct --prior-dir.")
    found = [*(path for path in inside if name_of(path) != name_of(new)), *priors]
    drops = _drops(drop, None if win_rates is None else read_drops(win_rates), found)
    limits = Limits(min_angle, max_drop)
    with counting() as progress:
        report = run_gate(
            new,
            found,
            drops=drops,
            base=base,
            limits=limits,
            progress=lambda done, total: progress("angles", done, total),
        )
    if report.left_out and not report.comparisons:
        reasons = " ".join(refusal.reason for refusal in report.left_out)
        raise AdapterError(f"No prior adapter could be compared: {reasons}")
    if as_json:
        click.echo(json.dumps(_as_dict(report), indent=2))
    else:
        _print(report, limits)
    raise click.exceptions.Exit(report.exit_code)


def _drops(
    drop: float | None, by_name: dict[str, float] | None, priors: list[Path]
) -> dict[str, float] | float | None:
    from adapters.folders import name_of
    from kiki.names import near

    if drop is not None and by_name is not None:
        raise click.UsageError("Give --win-rate-drop or --win-rates, not both.")
    if drop is not None and not -1 <= drop <= 1:
        raise click.BadParameter(f"{drop} isn't between -1 and 1.", param_hint="--win-rate-drop")
    names = [name_of(path) for path in priors]
    for name in by_name or {}:
        if name not in names:
            raise click.BadParameter(
                f"there is no prior adapter {name!r}.{near(name, names)}",
                param_hint="--win-rates",
            )
    return drop if by_name is None else by_name


def _as_dict(report: GateReport) -> dict[str, Any]:
    return {
        "adapter": report.adapter,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "roll_back": report.roll_back,
        "findings": [asdict(finding) for finding in report.findings],
        "priors": [
            {
                "name": one.prior,
                "verdict": one.verdict,
                "degrees": one.angles.mean,
                "win_rate_drop": one.win_rate_drop,
                "kinds": {kind.kind: kind.degrees for kind in one.angles.kinds},
                "skipped": one.angles.skipped,
            }
            for one in report.comparisons
        ],
        "left_out": [{"name": one.name, "reason": one.reason} for one in report.left_out],
    }


def _print(report: GateReport, limits: Limits) -> None:
    for finding in report.findings:
        click.echo(f"{finding.level}: {finding.detail}")
    if report.comparisons:
        width = max(len("prior"), *(len(one.prior) for one in report.comparisons))
        click.echo(f"{'prior':<{width}}  angle  win-rate drop  verdict    lowest kind")
        for one in report.comparisons:
            drop = "-" if one.win_rate_drop is None else f"{one.win_rate_drop:+.3f}"
            lowest = one.angles.lowest
            verdict = click.style(f"{one.verdict:<9}", fg=_COLOURS.get(one.verdict, "red"))
            click.echo(
                f"{one.prior:<{width}}  {one.angles.mean:>5.1f}  {drop:>13}  {verdict}  "
                f"{lowest.degrees:.1f} {lowest.kind}"
            )
    for refusal in report.left_out:
        click.echo(f"left out: {refusal.name}: {refusal.reason}")
    click.secho(_verdict(report, limits), fg=_COLOURS.get(report.verdict, "red"))


def _verdict(report: GateReport, limits: Limits) -> str:
    name = report.adapter
    if report.verdict == "unhealthy":
        return f"UNHEALTHY: {name} must not be served; train or fetch it again."
    if not report.comparisons:
        return f"PASS: {name} is healthy; there was no prior adapter to compare with."
    if report.verdict == "pass":
        return f"PASS: {name} is healthy, and lies far enough from every prior adapter."
    one = next(c for c in report.comparisons if c.verdict == report.verdict)
    return _reason(name, one, limits)


def _reason(name: str, one: Comparison, limits: Limits) -> str:
    close = f"{name} is {one.angles.mean:.1f} degrees from {one.prior}"
    if one.verdict == "angle":
        advice = (
            "measure the win rate on its questions, and give it with --win-rate-drop"
            if one.win_rate_drop is None
            else "the win rate held, so keep it"
        )
        return f"ANGLE: {close}, under {limits.angle:g}; {advice}."
    fell = f"the win rate on {one.prior} fell by {one.win_rate_drop:.3f} (over " \
           f"{limits.win_rate_drop:g})"  # fmt: skip
    if one.verdict == "roll-back":
        return f"ROLL BACK: {close}, under {limits.angle:g}, and {fell}."
    return f"WIN RATE: {fell}, but {close}: look at the data, no roll-back by this gate."
