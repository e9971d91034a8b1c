"""Routing a set of prompts as it would be served, and comparing with what they are about."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.conversation import Conversations, Said
from routing.router import RouteDecision
from routing.training.datasets import Dataset
from routing.training.evaluate import Report, report, target_matrix
from routing.training.rows import Row
from routing.training.vectors import Embeds

TIMED = 40
"""Prompts that are routed one by one before the rest, to measure how long one takes."""
CHUNK = 64

Progress = Callable[[str, int, int], None]
"""Called with the set's name, the prompts routed so far and the prompts in all."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One set's report.

    Attributes:
        route_p50_ms: embedding and deciding, one prompt at a time.
        baselines: top-1 of other ways to route the set's conversations.
    """

    name: str
    note: str
    report: Report
    route_p50_ms: float | None
    baselines: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        found = {"name": self.name, "note": self.note, "route_p50_ms": self.route_p50_ms}
        more = {"baselines": self.baselines} if self.baselines else {}
        return found | asdict(self.report) | more


def measure(
    dataset: Dataset, embedder: Embeds, conversations: Conversations, progress: Progress
) -> Measured:
    """Routes all of the set, each row with the conversation that it goes on with."""
    rows = dataset.rows
    targets = target_matrix(rows, conversations.router.table).astype(bool)
    decisions, times = _decide(rows, embedder, conversations, dataset.name, progress)
    outputs = conversations.router.table.outputs
    return Measured(
        dataset.name,
        dataset.note,
        report(decisions, targets, outputs),
        round(statistics.median(times), 3) if times else None,
        _baselines(rows, targets, embedder, conversations),
    )


def joined(question: str, before: Sequence[Said]) -> str:
    """All user turns as one text: the plainest way to route a conversation."""
    return "\n".join([*(turn.text for turn in before if turn.role == "user"), question])


def _decide(
    rows: Sequence[Row],
    embedder: Embeds,
    conversations: Conversations,
    name: str,
    progress: Progress,
) -> tuple[list[RouteDecision], list[float]]:
    decisions: list[RouteDecision] = []
    times: list[float] = []
    for row in rows[:TIMED]:
        began = time.perf_counter()
        decisions.append(conversations.route(row.prompt, row.before).decision)
        times.append((time.perf_counter() - began) * 1e3)
        progress(name, len(decisions), len(rows))
    for start in range(TIMED, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        embedder.embed([row.prompt for row in part])  # in batches, for the embedder's cache
        decisions += [conversations.route(row.prompt, row.before).decision for row in part]
        progress(name, len(decisions), len(rows))
    return decisions, times


def _baselines(
    rows: Sequence[Row],
    targets: NDArray[np.bool_],
    embedder: Embeds,
    conversations: Conversations,
) -> dict[str, float]:
    """Top-1 of the last turn alone and of all turns joined, where there are conversations."""
    labelled = [number for number, row in enumerate(rows) if row.domains]
    if not labelled or not any(row.before for row in rows):
        return {}
    router = conversations.router
    places = {name: place for place, name in enumerate(router.table.outputs)}
    ways = {
        "last_turn_alone": [rows[number].prompt for number in labelled],
        "all_turns_joined": [joined(rows[n].prompt, rows[n].before) for n in labelled],
    }
    shares = {}
    for way, texts in ways.items():
        pairs = zip(embedder.embed(texts), texts, strict=True)
        first = [places[router.route(vector, text).scores[0].name] for vector, text in pairs]
        shares[way] = float(targets[labelled, first].mean())
    return shares
