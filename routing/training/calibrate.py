"""Calibration: scores that are probabilities, and the limits that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RoutingError
from routing.head import Calibration, Scope, Several, leads

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Limits:
    """The three limits, and how well each does on its rows."""

    threshold: float
    active_f1: float
    scope_threshold: float
    scope_accuracy: float
    several_threshold: float
    several_accuracy: float


def platt(logits: Array, targets: Array, weights: Array) -> Calibration:
    """Fits sigmoid(slope * logit + lead * lead over the others + offset) by the log loss.

    Args:
        logits: (rows, outputs) on rows that the head wasn't fitted on.
        targets: the same shape, 0 or 1.
        weights: the same shape; 0 where a row says nothing about an output.
    """
    from sklearn.linear_model import LogisticRegression

    inputs = np.stack([logits.ravel(), leads(logits).ravel()], axis=1)
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(inputs, targets.ravel(), sample_weight=weights.ravel())
    slope, lead = (float(number) for number in model.coef_[0])
    return Calibration(slope, lead, float(model.intercept_[0]))


def scope(features: Array, inside: NDArray[np.bool_]) -> Scope:
    """A logistic model of in-domain against out-of-scope, both classes with the same weight."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced", C=10.0, max_iter=1000)
    model.fit(features, inside)
    return Scope(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def several(features: Array, needed: NDArray[np.bool_]) -> Several:
    """A logistic model of prompts for several domains against those for one, as `scope`."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced", C=10.0, max_iter=1000)
    model.fit(features, needed)
    return Several(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def best_threshold(scores: Array, targets: Array) -> tuple[float, float]:
    """The score from which an output is active, and the F1 it gives.

    Maximises the mean over rows of the F1 of the active set (at most four) against the labels;
    a row with no label counts 1 where nothing is active.
    """
    top = np.argsort(-scores, axis=1)[:, :4]
    ranked = np.take_along_axis(scores, top, axis=1)
    hits = np.take_along_axis(targets, top, axis=1)
    labels = targets.sum(axis=1)
    best = (0.5, -1.0)
    for threshold in np.round(np.arange(0.05, 0.96, 0.01), 2).tolist():
        active = ranked >= threshold
        size = active.sum(axis=1)
        right = (hits * active).sum(axis=1)
        f1 = np.where(size + labels > 0, 2 * right / np.maximum(size + labels, 1), 1.0)
        best = max(best, (threshold, float(f1.mean())), key=lambda pair: pair[1])
    return best


def best_cut(values: Array, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """The value from which a row counts as positive, and the balanced accuracy it gives."""
    best = (0.5, -1.0)
    for cut in np.round(np.arange(0.01, 1.0, 0.01), 2).tolist():
        said = values >= cut
        accuracy = (float(said[positive].mean()) + float((~said[~positive]).mean())) / 2
        best = max(best, (cut, accuracy), key=lambda pair: pair[1])
    return best


def require_all_kinds(targets: Array) -> None:
    """Raises `RoutingError` where a kind of prompt that a limit is measured on is missing."""
    labels = targets.sum(axis=1)
    for rows, what in (
        (labels > 0, "prompt with a domain"),
        (labels == 0, "prompt that is out of scope"),
        (labels > 1, "prompt for several domains"),
        (labels == 1, "prompt for one domain"),
    ):
        if not rows.any():
            raise RoutingError(
                f"The calibration part has no {what}, so the router's limits can't be measured.",
                fix="Add such prompts to the training data.",
            )


def limits(scores: Array, in_domain: Array, needs_several: Array, targets: Array) -> Limits:
    """All three limits on the calibration rows.

    Args:
        scores: (rows, outputs), calibrated.
        in_domain: (rows,), the probability of being in scope.
        needs_several: (rows,), the probability that several domains are needed.
        targets: (rows, outputs).
    """
    labels = targets.sum(axis=1)
    some = labels > 0
    return Limits(
        *best_threshold(scores, targets),
        *best_cut(in_domain, some),
        *best_cut(needs_several[some], labels[some] > 1),
    )
