"""Fitting how much of a follow-up's route its conversation decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RoutingError
from routing.conversation import (
    FORMULA,
    LEAST_SHARE,
    Conversations,
    Formula,
    context_of,
    share_of,
    words_of,
)
from routing.training.evaluate import target_matrix
from routing.training.rows import Row
from routing.training.vectors import Embeds

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FollowUp:
    """One row as the router reads it.

    `alone` and `together` are log-odds of shape (outputs,), `target` is 0 or 1 for each;
    `unsure` is the last turn's highest log-odds, None where a rule has it read alone.
    """

    words: float
    unsure: float | None
    alone: Array
    together: Array
    target: Array

    def mixed(self, formula: Formula, *, least: float = 0.0) -> Array:
        """The log-odds with the formula's share of the conversation; under `least`, none."""
        share = 0.0 if self.unsure is None else share_of(self.words, self.unsure, formula)
        share = share if share >= least else 0.0
        return np.float32(1 - share) * self.alone + np.float32(share) * self.together


@dataclass(frozen=True, slots=True)
class Fitted:
    """A formula, with the mean log loss and the top-1 (of rows with a label) that it gives."""

    formula: Formula
    loss: float
    top1: float


def read(
    rows: Sequence[Row], embedder: Embeds, conversations: Conversations
) -> tuple[FollowUp, ...]:
    """The rows that have a conversation, read alone and with it."""
    router = conversations.router
    pairs = [(row, context) for row in rows if (context := context_of(row.prompt, row.before))]
    if not pairs:
        raise RoutingError(
            "There is no conversation to fit on.", fix="Add some to routing/data/followups.jsonl."
        )
    alone = embedder.embed([row.prompt for row, _ in pairs])
    together = embedder.embed([context for _, context in pairs])
    targets = target_matrix([row for row, _ in pairs], router.table)
    found = []
    for (row, context), own, joined, target in zip(pairs, alone, together, targets, strict=True):
        reading = router.read(own, row.prompt)
        found.append(
            FollowUp(
                words_of(row.prompt),
                conversations.unsure(row.prompt, reading),
                reading.log_odds,
                router.read(joined, context).log_odds,
                target,
            )
        )
    return tuple(found)


def fit(turns: Sequence[FollowUp], start: Formula = FORMULA) -> Fitted:
    """The formula with the least log loss of the mixed scores, by Nelder and Mead (1965)."""
    from scipy.optimize import minimize

    found = minimize(lambda x: loss(turns, tuple(x.tolist())), start, method="Nelder-Mead")
    bias, per_log_word, per_log_odds = (round(float(number), 3) for number in found.x)
    return measured(turns, (bias, per_log_word, per_log_odds))


def measured(turns: Sequence[FollowUp], formula: Formula) -> Fitted:
    """What the formula gives on these turns, small shares left out as in serving."""
    labelled = [turn for turn in turns if turn.target.any()]
    right = [
        bool(turn.target[turn.mixed(formula, least=LEAST_SHARE).argmax()]) for turn in labelled
    ]
    return Fitted(formula, loss(turns, formula), float(np.mean(right)) if right else 0.0)


def loss(turns: Sequence[FollowUp], formula: Formula) -> float:
    """Binary cross-entropy of the mixed scores, summed over outputs, mean over turns."""
    odds = np.stack([turn.mixed(formula) for turn in turns]).astype(np.float64)
    target = np.stack([turn.target for turn in turns])
    each = np.logaddexp(0, odds) - target * odds
    return float(each.sum(axis=1).mean())
