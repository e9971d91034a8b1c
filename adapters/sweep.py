"""The angles between all pairs of a folder's adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.adapter import Refusal
from adapters.angle import degrees, inner_products, shape_of
from adapters.folders import name_of, weight_bytes
from adapters.forms import read_lora
from adapters.health import examine
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[str, int, int], None]

MEMORY_BYTES = 8 * 10**9


@dataclass(frozen=True, slots=True)
class Pair:
    """Two adapters, their mean angle in degrees, and the angle of each kind of module."""

    a: str
    b: str
    degrees: float
    kinds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The pairs that could be measured, and the adapters that were left out with the reason."""

    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    left_out: tuple[Refusal, ...]

    @property
    def closest(self) -> Pair | None:
        return min(self.pairs, key=lambda pair: pair.degrees, default=None)

    def matrix(self) -> list[list[float | None]]:
        """Degrees by the order of ``names``; None on the diagonal and where nothing is shared."""
        found = {frozenset((pair.a, pair.b)): pair.degrees for pair in self.pairs}
        return [[found.get(frozenset((a, b))) for b in self.names] for a in self.names]


def sweep(
    paths: Sequence[Path], *, memory: int = MEMORY_BYTES, progress: Progress | None = None
) -> Sweep:
    """Measure the angle of every pair of adapters. The sick and the unreadable are left out.

    ``memory`` bounds, in bytes, what the adapters take at a time: where not all fit, they are
    read again, block against block. The pairs of two blocks cost a few large matrix products.
    """
    readable, left_out = _healthy(paths, progress)
    sums = _Sums(len(readable))
    blocks = list(_blocks(readable, memory))
    rounds = list(combinations_with_replacement(range(len(blocks)), 2))
    for done, (first, second) in enumerate(rounds):
        if progress:
            progress("angles", done, len(rounds))
        rows = _read(readable, blocks[first])
        columns = rows if second == first else _read(readable, blocks[second])
        sums.add(rows, columns)
    if progress:
        progress("angles", len(rounds), len(rounds))
    names = tuple(name_of(path) for path in readable)
    return Sweep(names, tuple(sums.pairs(names)), tuple(left_out))


class _Sums:
    """Inner products and squared norms of all pairs, summed by kind of module.

    ``squares[kind][i, j]`` is the squared norm of adapter i over what it shares with j.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._products: dict[str, NDArray[np.float64]] = {}
        self._squares: dict[str, NDArray[np.float64]] = {}

    def add(self, rows: Mapping[int, Lora], columns: Mapping[int, Lora]) -> None:
        """Add the pairs of two blocks of adapters, given by their numbers."""
        import numpy as np

        for kind, left, right in _shared(rows, columns):
            shape = (self._count, self._count)
            products = self._products.setdefault(kind, np.zeros(shape))
            squares = self._squares.setdefault(kind, np.zeros(shape))
            one = list(left.values())
            other = one if right is left else list(right.values())
            across = inner_products(one, other).sum(axis=0)
            i, j = list(left), list(right)
            products[np.ix_(i, j)] += across
            if right is left:
                squares[np.ix_(i, i)] += np.maximum(across.diagonal(), 0)[:, None]
            else:
                squares[np.ix_(i, j)] += _square_norms(one)[:, None]
                squares[np.ix_(j, i)] += _square_norms(other)[:, None]

    def pairs(self, names: Sequence[str]) -> Iterator[Pair]:
        """Every pair that shares a kind of module which both change."""
        by_kind = {
            kind: degrees(products, self._squares[kind], self._squares[kind].T)
            for kind, products in sorted(self._products.items())
        }
        for i in range(self._count):
            for j in range(i + 1, self._count):
                kinds = {kind: float(angle[i, j]) for kind, angle in by_kind.items()}
                kinds = {kind: angle for kind, angle in kinds.items() if not math.isnan(angle)}
                if kinds:
                    mean = math.fsum(kinds.values()) / len(kinds)
                    yield Pair(names[i], names[j], mean, kinds)


def _shared(
    rows: Mapping[int, Lora], columns: Mapping[int, Lora]
) -> Iterator[tuple[str, dict[int, LoraWeight], dict[int, LoraWeight]]]:
    """Kind and updates of each module, by adapter; those of another shape are another module."""
    left = _by_module(rows)
    right = left if columns is rows else _by_module(columns)
    for key, weights in left.items():
        if key in right:
            yield next(iter(weights.values())).kind, weights, right[key]


def _by_module(loras: Mapping[int, Lora]) -> dict[object, dict[int, LoraWeight]]:
    modules: dict[object, dict[int, LoraWeight]] = {}
    for number, lora in loras.items():
        for name, weight in lora.weights.items():
            modules.setdefault((name, shape_of(weight)), {})[number] = weight
    return modules


def _square_norms(weights: Sequence[LoraWeight]) -> NDArray[np.float64]:
    import numpy as np

    each = ([weight] for weight in weights)
    return np.maximum([float(inner_products(one, one).sum()) for one in each], 0)


def _read(paths: Sequence[Path], block: Sequence[int]) -> dict[int, Lora]:
    return {number: read_lora(paths[number]) for number in block}


def _blocks(paths: Sequence[Path], memory: int) -> Iterator[list[int]]:
    """The adapters' numbers, in blocks of which two fit the memory (one, if all of them do)."""
    sizes = [2 * weight_bytes(path) for path in paths]  # BF16 is read as float32
    limit = memory if sum(sizes) <= memory else memory // 2
    block: list[int] = []
    for number in range(len(paths)):
        if block and sum(sizes[one] for one in [*block, number]) > limit:
            yield block
            block = []
        block.append(number)
    if block:
        yield block


def _healthy(paths: Sequence[Path], progress: Progress | None) -> tuple[list[Path], list[Refusal]]:
    readable: list[Path] = []
    left_out: list[Refusal] = []
    for done, path in enumerate(paths):
        if progress:
            progress("health", done, len(paths))
        if any(name_of(path) == name_of(other) for other in readable):
            reason = f"{path} has the name of another adapter here. Rename one of them."
            left_out.append(Refusal(name_of(path), path, reason))
            continue
        try:
            sick = [finding for finding in examine(read_lora(path)) if finding.level == "sick"]
        except AdapterError as error:
            left_out.append(Refusal(name_of(path), path, str(error)))
            continue
        if sick:
            left_out.append(Refusal(name_of(path), path, " ".join(one.detail for one in sick)))
        else:
            readable.append(path)
    if progress:
        progress("health", len(paths), len(paths))
    return readable, left_out
