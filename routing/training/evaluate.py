"""How right the router is: ranks, active sets, calibration and scope, on labelled prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routing.domains import DomainTable
from routing.router import RouteDecision, Router
from routing.training.rows import Row

BINS = 15


@dataclass(frozen=True, slots=True)
class DomainReport:
    """One output: rows with the label, and precision, recall and F1 of its being active."""

    name: str
    n: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured. Ranks and `ece` are over rows with a label; a share of none is None.

    `oos_auroc` is over all rows, by the probability of being in domain; `top1_low` and
    `top1_high` are the 95 % Wilson interval of `top1`.
    """

    n: int
    n_out_of_scope: int
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    top3: float | None
    ece: float | None
    macro_f1: float | None
    micro_f1: float | None
    oos_auroc: float | None
    oos_fallback: float | None
    domains: tuple[DomainReport, ...]


def evaluate(rows: Sequence[Row], vectors: NDArray[np.float32], router: Router) -> Report:
    """Routes every row as a request would be, and compares.

    Args:
        rows: with the names of domains or outputs; no label means out of scope.
        vectors: their embeddings, shape (len(rows), 768).
    """
    decisions = [router.route(vector) for vector in vectors]
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


def report(
    decisions: Sequence[RouteDecision], targets: NDArray[np.bool_], outputs: Sequence[str]
) -> Report:
    """Compares decisions with targets of shape (len(decisions), outputs)."""
    places = {name: place for place, name in enumerate(outputs)}
    order = np.array(
        [[places[score.name] for score in decision.scores] for decision in decisions], np.int64
    ).reshape(len(decisions), len(outputs))
    active = np.zeros_like(targets)
    for number, decision in enumerate(decisions):
        for domain in decision.active:
            active[number, places[domain.name]] = True
    labelled: NDArray[np.bool_] = np.asarray(targets.any(axis=1))
    right = np.take_along_axis(targets, order, axis=1)
    first, third = right[labelled, 0], np.asarray(right[labelled, :3].any(axis=1))
    highest = np.array([decision.scores[0].score for decision in decisions])
    in_domain = np.array([decision.in_domain for decision in decisions])
    low, high = wilson(int(first.sum()), len(first)) if len(first) else (None, None)
    domains = _domains(active, targets, outputs)
    overall = 2 * (active & targets).sum(), active.sum() + targets.sum()
    return Report(
        n=len(decisions),
        n_out_of_scope=int((~labelled).sum()),
        top1=_mean(first),
        top1_low=low,
        top1_high=high,
        top3=_mean(third),
        ece=ece(highest[labelled], first) if len(first) else None,
        macro_f1=_mean(np.array([domain.f1 for domain in domains])),
        micro_f1=float(overall[0] / overall[1]) if overall[1] else None,
        oos_auroc=auroc(in_domain, labelled),
        oos_fallback=_mean(np.asarray(~active[~labelled].any(axis=1))),
        domains=domains,
    )


def ece(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == number).mean()
        * abs(confidence[bins == number].mean() - right[bins == number].mean())
        for number in np.unique(bins)
    ]
    return float(sum(gaps))


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float | None:
    """The chance that a positive scores higher than a negative; None where one side is empty."""
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    z = 1.96
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float(middle - reach), float(middle + reach)


def _domains(
    active: NDArray[np.bool_], targets: NDArray[np.bool_], outputs: Sequence[str]
) -> tuple[DomainReport, ...]:
    """The outputs that occur as a label."""
    reports = []
    for place, name in enumerate(outputs):
        labels, said = int(targets[:, place].sum()), int(active[:, place].sum())
        if not labels:
            continue
        hits = int((active[:, place] & targets[:, place]).sum())
        reports.append(
            DomainReport(
                name,
                labels,
                hits / said if said else 0.0,
                hits / labels,
                2 * hits / (labels + said),
            )
        )
    return tuple(reports)


def _mean(values: NDArray[np.bool_] | NDArray[np.floating]) -> float | None:
    return float(values.mean()) if len(values) else None
