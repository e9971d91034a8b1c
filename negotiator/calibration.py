"""From which confidence on Catfish leaves a panel alone: its threshold, from measured panels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_RATE, MOST_RATE = 0.1, 0.9
"""A gate that fires less or more often than this is inert."""
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Judged:
    """A panel's confidence, whether the gate fires at any threshold, whether it was right."""

    confidence: float
    fires_anyway: bool
    right: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """``gain`` is the share of wrong panels on which the gate fires, less that of right ones, on
    folds that the threshold wasn't chosen on; ``rate`` is how often it fires on all."""

    threshold: float
    rate: float
    gain: float


def calibrate(panels: Sequence[Judged]) -> Calibration:
    """The threshold with the greatest gain among those that don't make the gate inert.

    Raises ValueError for fewer than 10 panels, or where all were right, or all wrong.
    """
    if len(panels) < 2 * FOLDS or len({panel.right for panel in panels}) < 2:
        raise ValueError("calibrate() needs 10 panels, some of them right, some of them wrong.")
    unseen: list[tuple[bool, bool]] = []
    for fold in range(FOLDS):
        rest = [panel for place, panel in enumerate(panels) if place % FOLDS != fold]
        chosen = _best(rest)
        unseen += [(_fires(one, chosen), one.right) for one in panels[fold::FOLDS]]
    threshold = _best(panels)
    return Calibration(threshold, rate(panels, threshold), _gain(unseen))


def rate(panels: Sequence[Judged], threshold: float) -> float:
    """How often the gate fires."""
    return sum(_fires(panel, threshold) for panel in panels) / len(panels)


def _best(panels: Sequence[Judged]) -> float:
    values = sorted({0.0, 1.0, *(panel.confidence for panel in panels)})
    middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    lively = [t for t in middles if LEAST_RATE <= rate(panels, t) <= MOST_RATE] or middles
    return max(lively, key=lambda t: _gain([(_fires(one, t), one.right) for one in panels]))


def _fires(panel: Judged, threshold: float) -> bool:
    return panel.fires_anyway or panel.confidence < threshold


def _gain(outcomes: Sequence[tuple[bool, bool]]) -> float:
    wrong = [fired for fired, right in outcomes if not right]
    right = [fired for fired, right in outcomes if right]
    return sum(wrong) / max(len(wrong), 1) - sum(right) / max(len(right), 1)
