"""Training text as token ids, and the order in which it is learnt: the same for every backend."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WARM_UP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a whole exchange; the loss falls on those from ``answer_start`` on."""

    ids: tuple[int, ...]
    answer_start: int

    @property
    def teaches(self) -> bool:
        """Whether any of the answer is left after long rows were cut."""
        return self.answer_start < len(self.ids)


def iter_batches(rows: Sequence[Encoded], batch_rows: int, seed: int) -> Iterator[list[Encoded]]:
    """Endless batches of rows of like length (less padding), in shuffled order each epoch."""
    chance = random.Random(seed)
    while True:
        order = sorted(rows, key=lambda row: len(row.ids) + chance.uniform(-30, 30))
        batches = [order[i : i + batch_rows] for i in range(0, len(order), batch_rows)]
        chance.shuffle(batches)
        yield from batches


def learning_rate_share(schedule: str, step: int, steps: int) -> float:
    """The share of the learning rate that step ``step`` (from 1) of ``steps`` takes."""
    if schedule == "constant":
        return 1.0
    warm_up = max(1, round(steps * WARM_UP_SHARE))
    if step <= warm_up:
        return step / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - warm_up) / max(1, steps - warm_up)))


def curve_steps(steps: int, points: int = 2) -> frozenset[int]:
    """The steps after which held-out perplexity is measured; the last one is always among them."""
    every = max(1, steps // points)
    return frozenset({*range(every, steps - every + 1, every), steps})
