"""The forgetting gate: may a newly trained adapter join those that are there?

Two signs are looked at for each prior adapter: the angle between the two updates, and how much
the win rate on the prior's own questions fell. Only both together roll an adapter back: two
updates can point the same way and harm nothing, and a win rate can fall by chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.adapter import Refusal
from adapters.angle import AngleReport, angles
from adapters.folders import name_of
from adapters.forms import read_lora
from adapters.health import Finding, examine, is_sick
from kiki.errors import AdapterError

Verdict = Literal["pass", "angle", "win-rate", "roll-back", "unhealthy"]

EXIT_CODES: Mapping[Verdict, int] = {
    "pass": 0,
    "angle": 1,
    "win-rate": 2,
    "roll-back": 2,
    "unhealthy": 3,
}
_WORST_FIRST: tuple[Verdict, ...] = ("roll-back", "win-rate", "angle")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """``angle``: the smallest mean angle that passes, in degrees.

    ``win_rate_drop``: the largest fall of a win rate (0 to 1) that passes.
    """

    angle: float = 30.0
    win_rate_drop: float = 0.03


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The new adapter against one prior; ``win_rate_drop`` is None where it wasn't measured."""

    prior: str
    angles: AngleReport
    win_rate_drop: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found, and its verdict: the worst one over all priors.

    ``left_out`` are the priors that couldn't be compared; the verdict says nothing about them.
    """

    adapter: str
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    left_out: tuple[Refusal, ...]
    verdict: Verdict

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def roll_back(self) -> bool:
        """Did both signs show for one prior, so that the new adapter must go?"""
        return self.verdict == "roll-back"


def judge(angle: float, win_rate_drop: float | None, limits: Limits) -> Verdict:
    """The verdict on one prior.

    A small angle alone is ``angle``: measure the win rate. A drop alone is ``win-rate``: this
    adapter's direction doesn't explain it. Both are ``roll-back``.
    """
    # Written so that an angle or a drop that is no number doesn't pass.
    close = not angle >= limits.angle
    worse = win_rate_drop is not None and not win_rate_drop <= limits.win_rate_drop
    if close and worse:
        return "roll-back"
    if worse:
        return "win-rate"
    return "angle" if close else "pass"


def run_gate(
    new: Path,
    priors: Sequence[Path],
    *,
    drops: Mapping[str, float] | float | None = None,
    base: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> GateReport:
    """Judge the adapter at ``new``: its health first, then against each prior.

    ``drops`` is how far win rates fell (0.05 is five points), one for all priors or by their
    names. Two adapters are in memory at a time. A new adapter that can't be read is unhealthy.
    """
    try:
        lora = read_lora(new)
    except AdapterError as error:
        findings: tuple[Finding, ...] = (Finding("sick", "unreadable", str(error)),)
        return GateReport(name_of(new), findings, (), (), "unhealthy")
    findings = examine(lora, base=base)
    if is_sick(findings):
        return GateReport(name_of(new), findings, (), (), "unhealthy")
    comparisons: list[Comparison] = []
    left_out: list[Refusal] = []
    for done, path in enumerate(priors, start=1):
        name = name_of(path)
        try:
            report = angles(read_lora(path), lora)
        except AdapterError as error:
            left_out.append(Refusal(name, path, str(error)))
        else:
            drop = drops.get(name) if isinstance(drops, Mapping) else drops
            verdict = judge(report.mean, drop, limits)
            comparisons.append(Comparison(name, report, drop, verdict))
        if progress:
            progress(done, len(priors))
    verdict = _worst(comparisons)
    return GateReport(name_of(new), findings, tuple(comparisons), tuple(left_out), verdict)


def _worst(comparisons: Sequence[Comparison]) -> Verdict:
    found = {comparison.verdict for comparison in comparisons}
    return next((verdict for verdict in _WORST_FIRST if verdict in found), "pass")


def read_drops(path: Path) -> dict[str, float]:
    """How far win rates fell, by prior, from a JSON file.

    Each prior's name stands before its drop (0.05), or ``{"before": 0.6, "after": 0.55}``. Raises
    AdapterError when the file isn't that, or a number isn't a rate.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path} isn't a JSON object.", fix='For example {"sql": 0.01}.')
    return {name: _drop(value, f"{path}: {name}") for name, value in content.items()}


def _drop(value: object, where: str) -> float:
    if isinstance(value, dict):
        before, after = (_rate(value.get(key), 0, f"{where}.{key}") for key in ("before", "after"))
        return round(before - after, 12)  # 0.60 - 0.57 is 0.03, as people count
    return _rate(value, -1, where)


def _rate(value: object, lowest: int, where: str) -> float:
    # NaN is no number between two others either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= 1:
        raise AdapterError(f"{where} is {value!r}; it must be a number from {lowest} to 1.")
    return float(value)
