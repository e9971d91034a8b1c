"""How good the detector is, with how far each number may be off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antibias.corpus import FAIR, NEUTRAL, read_outside
from antibias.detector import TYPES, Detector
from antibias.prompt import Embed

RESAMPLES = 500


def metrics(
    found: NDArray[np.bool_], targets: NDArray[np.int64], *, intervals: bool = False
) -> dict[str, Any]:
    """Precision, recall and F1 a type, macro F1, and false alarms.

    Args:
        found: what was found, shape (texts, 6).
        targets: the place of each text's type, `FAIR` or `NEUTRAL`.
        intervals: add 95 % ones: Wilson's for shares, the bootstrap's for F1.
    """
    types: dict[str, Any] = {}
    for kind, name in enumerate(TYPES):
        positive = np.equal(targets, kind)
        right = int((found[:, kind] & positive).sum())
        types[name] = {
            "precision": _share(right, int(found[:, kind].sum()), intervals),
            "recall": _share(right, int(positive.sum()), intervals),
            "f1": round(_f1(found, targets, kind), 3),
        }
        if intervals:
            types[name]["f1_95"] = _bootstrap(partial(_f1, found, targets, kind), len(targets))
    flagged: NDArray[np.bool_] = np.asarray(found.any(axis=1))
    result: dict[str, Any] = {
        "types": types,
        "macro_f1": round(_macro(found, targets), 3),
        "any_bias_recall": _rate(flagged, np.greater_equal(targets, 0), intervals),
        "fair_false_alarms": _rate(flagged, np.equal(targets, FAIR), intervals),
        "neutral_false_alarms": _rate(flagged, np.equal(targets, NEUTRAL), intervals),
    }
    if intervals:
        result["macro_f1_95"] = _bootstrap(partial(_macro, found, targets), len(targets))
    return result


def measure_outside(detector: Detector, embed: Embed) -> dict[str, Any]:
    """The detector on sentences that were written before it saw any of them."""
    rows = read_outside()
    targets = np.array([TYPES.index(kind) if kind else NEUTRAL for _, kind in rows], np.int64)
    found = np.zeros((len(rows), len(TYPES)), np.bool_)
    screened = 0
    for row, (text, _) in enumerate(rows):
        suspects = detector.suspects(text)
        screened += bool(suspects)
        for finding in detector.judge(suspects, embed):
            found[row, TYPES.index(finding.type)] = True
    return {**metrics(found, targets, intervals=True), "sentences": len(rows), "screened": screened}


def _macro(
    found: NDArray[np.bool_], targets: NDArray[np.int64], rows: NDArray[np.int64] | None = None
) -> float:
    return float(np.mean([_f1(found, targets, kind, rows) for kind in range(len(TYPES))]))


def _f1(
    found: NDArray[np.bool_],
    targets: NDArray[np.int64],
    kind: int,
    rows: NDArray[np.int64] | None = None,
) -> float:
    """Of one type, over some of the rows."""
    taken = slice(None) if rows is None else rows
    seen, positive = found[taken, kind], np.equal(targets[taken], kind)
    both = int(seen.sum() + positive.sum())
    return 2 * int((seen & positive).sum()) / both if both else 0.0


def _rate(flagged: NDArray[np.bool_], rows: NDArray[np.bool_], intervals: bool) -> Any:
    return _share(int(flagged[rows].sum()), int(rows.sum()), intervals)


def _share(hits: int, of: int, intervals: bool) -> Any:
    share = round(hits / max(of, 1), 4)
    return {"value": share, "n": of, "95": _wilson(hits, of)} if intervals else share


def _wilson(hits: int, of: int) -> list[float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not of:
        return [0.0, 1.0]
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return [round(max(middle - reach, 0.0), 3), round(min(middle + reach, 1.0), 3)]


def _bootstrap(statistic: Callable[[NDArray[np.int64]], float], of: int) -> list[float]:
    """The 95 % percentile interval over resampled texts (Efron 1979), always the same."""
    generator = np.random.default_rng(0)
    values = [statistic(generator.integers(of, size=of)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(low), 3), round(float(high), 3)]
