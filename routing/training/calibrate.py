"""Calibration: scores that are probabilities, and the limits that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RoutingError
from routing.head import Calibration, Scope

Array = NDArray[np.float32]

SHRINKAGE = 3.0
"""How strongly an output's own slope and offset are drawn to the common ones."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The threshold, the gate and the margin, and how well each does on its rows."""

    threshold: float
    active_f1: float
    scope_threshold: float
    scope_accuracy: float
    margin: float
    margin_accuracy: float


def platt(logits: Array, targets: Array, weights: Array) -> Calibration:
    """Fits sigmoid(slope * logit + offset): one common pair, then each output's own near it.

    Args:
        logits: (rows, outputs) on rows that the head wasn't fitted on.
        targets: the same shape, 0 or 1.
        weights: the same shape; 0 where a row says nothing about an output.
    """
    common = _fit(logits.ravel(), targets.ravel(), weights.ravel(), None)
    pairs = np.array(
        [
            _fit(logits[:, output], targets[:, output], weights[:, output], common)
            for output in range(logits.shape[1])
        ],
        np.float32,
    )
    return Calibration(pairs[:, 0].copy(), pairs[:, 1].copy())


def _fit(
    logits: Array, targets: Array, weights: Array, prior: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """(slope, offset) of the least weighted log loss, by Newton's method; ridge towards prior."""
    inputs = np.stack([logits, np.ones_like(logits)], axis=1).astype(np.float64)
    centre = np.array([1.0, 0.0]) if prior is None else prior
    ridge = np.eye(2) * (1e-6 if prior is None else SHRINKAGE)
    point = centre.copy()
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ point, -30, 30)))
        slope = inputs.T @ (weights * (chance - targets)) + ridge @ (point - centre)
        curve = (inputs * (weights * chance * (1 - chance))[:, None]).T @ inputs + ridge
        step = np.linalg.solve(curve + np.eye(2) * 1e-9, slope)
        point = point - np.clip(step, -1, 1)
        if float(np.abs(step).max()) < 1e-8:
            break
    # A slope under zero would turn an output's order around.
    point[0] = max(point[0], 0.05)
    return point


def scope(features: Array, inside: NDArray[np.bool_]) -> Scope:
    """A logistic model of in-domain against out-of-scope, both classes with the same weight."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced", C=10.0, max_iter=1000)
    model.fit(features, inside)
    return Scope(model.coef_[0].astype(np.float32), float(model.intercept_[0]))


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


def limits(scores: Array, in_domain: Array, targets: Array, multi: NDArray[np.bool_]) -> Limits:
    """All three limits on the calibration rows.

    `multi` marks the prompts written for several domains: the margin separates them from those
    with one label by the lead of the first score over the second.

    Raises:
        RoutingError: a kind of prompt that a limit is measured on is missing.
    """
    labelled = targets.sum(axis=1) > 0
    for rows, what in (
        (labelled, "prompt with a domain"),
        (~labelled, "prompt that is out of scope"),
        (multi & labelled, "prompt for several domains"),
        (~multi & labelled, "prompt for one domain"),
    ):
        if not rows.any():
            raise RoutingError(
                f"The calibration part has no {what}, so the router's limits can't be measured.",
                fix="Add such prompts to the training data.",
            )
    threshold, active_f1 = best_threshold(scores, targets)
    scope_threshold, scope_accuracy = best_cut(in_domain, labelled)
    ranked = -np.sort(-scores[labelled], axis=1)
    margin, margin_accuracy = best_cut(ranked[:, 0] - ranked[:, 1], ~multi[labelled])
    return Limits(threshold, active_f1, scope_threshold, scope_accuracy, margin, margin_accuracy)
