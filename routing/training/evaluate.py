"""How right the router is: ranks, active sets, calibration and scope, on labelled prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.domains import DomainTable
from routing.router import RouteDecision, Router
from routing.training.intervals import Interval, bootstrap, wilson
from routing.training.rows import Row

BINS = 15

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DomainReport:
    """One output: rows with the label, the share of them that rank it first, and precision,
    recall and F1 of its being active."""

    name: str
    n: int
    top1: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured. Ranks and `ece` are over rows with a label; a share of none is None.

    Attributes:
        top1: the highest score is one of the row's labels.
        top3: one of the three highest is.
        ece: expected calibration error of the highest score.
        macro_f1: mean F1 of the active set over the outputs that occur as a label.
        micro_f1: F1 of the active sets over all rows.
        oos_auroc: over all rows, by the probability of being in domain.
        oos_fallback: the share of the rows without a label that activate nothing.
        intervals: 95 % confidence intervals: Wilson's for shares, else by bootstrap.
        confusion: (outputs + 1, outputs + 1) counts, see `confusion_matrix`.
    """

    n: int
    n_out_of_scope: int
    top1: float | None
    top3: float | None
    ece: float | None
    macro_f1: float | None
    micro_f1: float | None
    oos_auroc: float | None
    oos_fallback: float | None
    intervals: dict[str, Interval]
    domains: tuple[DomainReport, ...]
    outputs: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """What a card records: all but the confusion matrix."""
        whole = asdict(self)
        return {name: whole[name] for name in whole if name not in ("outputs", "confusion")}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Decisions beside their labels, as arrays; `order` has the outputs from the highest down."""

    targets: Flags
    active: Flags
    order: NDArray[np.int64]
    highest: Floats
    in_domain: Floats

    @property
    def labelled(self) -> Flags:
        return np.asarray(self.targets.any(axis=1))

    def of(self, rows: NDArray[np.int64]) -> _Outcome:
        """These rows only."""
        return _Outcome(
            self.targets[rows],
            self.active[rows],
            self.order[rows],
            self.highest[rows],
            self.in_domain[rows],
        )


def evaluate(rows: Sequence[Row], vectors: NDArray[np.float32], router: Router) -> Report:
    """Routes every row as a request of one turn would be, and compares.

    Args:
        rows: with the names of domains or outputs; no label means out of scope.
        vectors: their embeddings, shape (len(rows), 768).
    """
    pairs = zip(vectors, rows, strict=True)
    decisions = [router.route(vector, row.prompt) for vector, row in pairs]
    targets = target_matrix(rows, router.table).astype(bool)
    return report(decisions, targets, router.table.outputs)


def target_matrix(rows: Sequence[Row], table: DomainTable) -> NDArray[np.float32]:
    """(rows, outputs), 1 where the row has the output's label."""
    places = {name: place for place, name in enumerate(table.outputs)}
    targets = np.zeros((len(rows), len(places)), np.float32)
    for number, row in enumerate(rows):
        for name in row.domains:
            targets[number, places[table.output_of(name)]] = 1
    return targets


def report(decisions: Sequence[RouteDecision], targets: Flags, outputs: Sequence[str]) -> Report:
    """Compares decisions with targets of shape (len(decisions), outputs)."""
    outcome = _outcome(decisions, targets, outputs)
    labelled = outcome.labelled
    first, third = _ranked(outcome, 1), _ranked(outcome, 3)
    fallback = np.asarray(~outcome.active[~labelled].any(axis=1))
    shares = {"top1": first, "top3": third, "oos_fallback": fallback}
    intervals = {
        name: wilson(int(hits.sum()), len(hits)) for name, hits in shares.items() if len(hits)
    }
    for name, statistic in _STATISTICS.items():
        found = bootstrap(partial(_resampled, outcome, statistic), len(decisions))
        if found is not None:
            intervals[name] = found
    return Report(
        n=len(decisions),
        n_out_of_scope=int((~labelled).sum()),
        top1=_mean(first),
        top3=_mean(third),
        ece=_ece_of(outcome),
        macro_f1=_macro_f1(outcome),
        micro_f1=_micro_f1(outcome),
        oos_auroc=_auroc_of(outcome),
        oos_fallback=_mean(fallback),
        intervals=intervals,
        domains=_domains(outcome, outputs),
        outputs=tuple(outputs),
        confusion=confusion_matrix(outcome.targets, outcome.active, outcome.order),
    )


def confusion_matrix(
    targets: Flags, active: Flags, order: NDArray[np.int64]
) -> tuple[tuple[int, ...], ...]:
    """Counts by label (rows) and highest score (columns); the last of both stands for none.

    A row of several labels counts for the one ranked first. A prompt with a label counts for the
    highest score, active or not, as top-1 does; one without counts for what was active.
    """
    none = targets.shape[1]
    counts = np.zeros((none + 1, none + 1), np.int64)
    for labels, said, ranks in zip(targets, active, order, strict=True):
        if labels.any():
            counts[next(place for place in ranks if labels[place]), ranks[0]] += 1
        else:
            counts[none, next((place for place in ranks if said[place]), none)] += 1
    return tuple(tuple(map(int, row)) for row in counts)


def ece(confidence: NDArray[np.floating], right: Flags) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == number).mean()
        * abs(confidence[bins == number].mean() - right[bins == number].mean())
        for number in np.unique(bins)
    ]
    return float(sum(gaps))


def auroc(scores: NDArray[np.floating], positive: Flags) -> float | None:
    """The chance that a positive scores higher than a negative; None where one side is empty."""
    others = np.sort(scores[~positive])
    if not others.size or not positive.any():
        return None
    below = np.searchsorted(others, scores[positive], side="left")
    below_or_even = np.searchsorted(others, scores[positive], side="right")
    return float((below + below_or_even).mean() / (2 * others.size))


def _outcome(
    decisions: Sequence[RouteDecision], targets: Flags, outputs: Sequence[str]
) -> _Outcome:
    places = {name: place for place, name in enumerate(outputs)}
    order = [[places[score.name] for score in decision.scores] for decision in decisions]
    active = np.zeros_like(targets)
    for number, decision in enumerate(decisions):
        for domain in decision.active:
            active[number, places[domain.name]] = True
    return _Outcome(
        targets,
        active,
        np.array(order, np.int64).reshape(len(decisions), len(outputs)),
        np.array([decision.scores[0].score for decision in decisions], np.float64),
        np.array([decision.in_domain for decision in decisions], np.float64),
    )


def _resampled(
    outcome: _Outcome,
    statistic: Callable[[_Outcome], float | None],
    rows: NDArray[np.int64],
) -> float | None:
    return statistic(outcome.of(rows))


def _ranked(outcome: _Outcome, count: int) -> Flags:
    """For each row with a label, whether one is among the `count` highest scores."""
    right = np.take_along_axis(outcome.targets, outcome.order[:, :count], axis=1)
    return np.asarray(right[outcome.labelled].any(axis=1))


def _ece_of(outcome: _Outcome) -> float | None:
    labelled = outcome.labelled
    return ece(outcome.highest[labelled], _ranked(outcome, 1)) if labelled.any() else None


def _auroc_of(outcome: _Outcome) -> float | None:
    return auroc(outcome.in_domain, outcome.labelled)


def _macro_f1(outcome: _Outcome) -> float | None:
    labels, said = outcome.targets.sum(axis=0), outcome.active.sum(axis=0)
    hits = (outcome.targets & outcome.active).sum(axis=0)
    occurs = labels > 0
    return _mean(2 * hits[occurs] / (labels + said)[occurs])


def _micro_f1(outcome: _Outcome) -> float | None:
    total = int(outcome.active.sum() + outcome.targets.sum())
    return 2 * int((outcome.active & outcome.targets).sum()) / total if total else None


_STATISTICS = {
    "ece": _ece_of,
    "macro_f1": _macro_f1,
    "micro_f1": _micro_f1,
    "oos_auroc": _auroc_of,
}


def _domains(outcome: _Outcome, outputs: Sequence[str]) -> tuple[DomainReport, ...]:
    """The outputs that occur as a label."""
    reports = []
    for place, name in enumerate(outputs):
        labels, said = outcome.targets[:, place], outcome.active[:, place]
        count, active = int(labels.sum()), int(said.sum())
        if not count:
            continue
        hits = int((said & labels).sum())
        reports.append(
            DomainReport(
                name,
                count,
                float((outcome.order[labels, 0] == place).mean()),
                hits / active if active else 0.0,
                hits / count,
                2 * hits / (count + active),
            )
        )
    return tuple(reports)


def _mean(values: Flags | NDArray[np.floating]) -> float | None:
    return float(values.mean()) if len(values) else None
