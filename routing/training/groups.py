"""Near-duplicates kept together, so that no prompt has its twin on the other side of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR = 0.9
"""Cosine from which two prompts say the same; templates with one word changed lie above it."""
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the three parts; no group of near-duplicates lies in two of them."""

    train: NDArray[np.int64]
    calibration: NDArray[np.int64]
    test: NDArray[np.int64]


def near_duplicates(vectors: NDArray[np.float32], near: float = NEAR) -> NDArray[np.int64]:
    """A group number for each row: rows are in one group where a chain of near pairs joins them."""
    parents = list(range(len(vectors)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ vectors.T
        for row, other in np.argwhere(cosines >= near).tolist():
            first, second = root(start + row), root(other)
            parents[max(first, second)] = min(first, second)
    return np.array([root(row) for row in range(len(vectors))])


def split(
    groups: NDArray[np.int64],
    strata: Sequence[str],
    *,
    seed: int,
    calibration: float = 0.1,
    test: float = 0.1,
) -> Split:
    """Splits by group, with about the same shares of every stratum.

    Args:
        groups: the group of each row.
        strata: what is to be spread evenly, such as source and first label, one a row.
    """
    rng = np.random.default_rng(seed)
    first_row = {int(group): row for row, group in reversed(list(enumerate(groups)))}
    members: dict[str, list[int]] = {}
    for group, row in sorted(first_row.items()):
        members.setdefault(strata[row], []).append(group)
    part_of: dict[int, int] = {}
    for stratum in sorted(members):
        shuffled = rng.permutation(members[stratum])
        ends = np.cumsum([test, calibration]) * len(shuffled) + rng.random()
        for place, group in enumerate(shuffled.tolist()):
            part_of[group] = int(np.searchsorted(ends, place + 1, side="left"))
    parts = np.array([part_of[int(group)] for group in groups])
    test_rows, calibration_rows, train_rows = (np.flatnonzero(parts == part) for part in range(3))
    return Split(train_rows, calibration_rows, test_rows)
