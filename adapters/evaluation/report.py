"""From outcomes to a row of the policy file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.evaluation.measurement import PERPLEXITY, SOLVED, Measurement
from adapters.evaluation.perplexity import RowLoss, perplexities
from adapters.evaluation.tasks import Outcome
from kiki.errors import AdapterError


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured: which adapter on which base, with what, and where that came from."""

    adapter: str
    base_model: str
    benchmark: str
    source: str


def measure_tasks(subject: Subject, outcomes: Sequence[Outcome]) -> Measurement:
    """The share of tasks solved by each, and how many only one of them solved."""
    n = len(outcomes)
    verdicts = [(outcome.base_solved, outcome.adapter_solved) for outcome in outcomes]
    return Measurement(
        adapter=subject.adapter,
        base_model=subject.base_model,
        benchmark=subject.benchmark,
        metric=SOLVED,
        base_score=round(100 * sum(base for base, _ in verdicts) / n, 3),
        adapter_score=round(100 * sum(own for _, own in verdicts) / n, 3),
        higher_is_better=True,
        source=subject.source,
        date=datetime.now(UTC).date(),
        n=n,
        only_base=sum(base and not own for base, own in verdicts),
        only_adapter=sum(own and not base for base, own in verdicts),
    )


def measure_text(subject: Subject, losses: Sequence[RowLoss], seed: int) -> Measurement:
    """Both perplexities, with the interval of their difference.

    Raises AdapterError where the adapter makes them no numbers.
    """
    found = perplexities(losses, seed)
    if not math.isfinite(found.base) or not math.isfinite(found.adapter):
        raise AdapterError(
            f"The adapter {subject.adapter} gives a perplexity of {found.adapter}.",
            fix="Its weights are damaged or were trained for another base.",
        )
    base, adapter = round(found.base, 3), round(found.adapter, 3)
    return Measurement(
        adapter=subject.adapter,
        base_model=subject.base_model,
        benchmark=subject.benchmark,
        metric=PERPLEXITY,
        base_score=base,
        adapter_score=adapter,
        higher_is_better=False,
        source=subject.source,
        date=datetime.now(UTC).date(),
        n=len(losses),
        # One row has no spread, and rounding may step over a bound: the interval holds the score.
        low=min(round(found.low, 3), adapter - base),
        high=max(round(found.high, 3), adapter - base),
    )
