"""The rows that the router is trained on: read, embedded, grouped and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routing.domains import DomainTable
from routing.training import rows
from routing.training.evaluate import target_matrix
from routing.training.groups import NEAR, Split, near_duplicates, split
from routing.training.rows import Row
from routing.training.vectors import Progress, VectorCache

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The training rows with their vectors, targets, groups and split."""

    rows: Sequence[Row]
    vectors: Array
    targets: Array
    groups: NDArray[np.int64]
    parts: Split
    table: DomainTable

    @property
    def packaged(self) -> NDArray[np.bool_]:
        return np.array([row.source == "packaged" for row in self.rows])


def read_corpus(
    vectors: VectorCache,
    data: Path,
    extra: Sequence[Path],
    clinc: Path | None,
    table: DomainTable,
    seed: int,
    progress: Progress | None = None,
) -> Corpus:
    """Reads, embeds, groups and splits all rows.

    Rows that say the same as one of the shifted set are left out: that set measures how the router
    does on prompts unlike all it has seen.
    """
    read = rows.read_packaged(table, data)
    for folder in extra:
        read += rows.read_folder(folder, table)
    if clinc:
        read += rows.read_clinc(clinc, "train")
    merged = rows.merge_repeats(read)
    embedded = vectors.embed([row.prompt for row in merged], progress)
    shifted = [row.prompt for row in rows.read_shifted(table, data)]
    away = vectors.embed(shifted, progress) if shifted else embedded[:0]
    apart = _apart(embedded, away)
    merged, embedded = list(compress(merged, apart)), embedded[apart]
    groups = near_duplicates(embedded)
    strata = [f"{row.source}:{row.domains[0] if row.domains else ''}" for row in merged]
    return Corpus(
        merged,
        embedded,
        target_matrix(merged, table),
        groups,
        split(groups, strata, seed=seed),
        table,
    )


def _apart(vectors: Array, others: Array) -> NDArray[np.bool_]:
    """Which of the vectors are no near-duplicate of any of the others."""
    return np.asarray((vectors @ others.T).max(axis=1, initial=0) < NEAR)
