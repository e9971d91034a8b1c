"""What is active in the next forward pass: the terms that every wrapped module adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx

from adapters.mix import Mix
from kiki.errors import EngineError, UnknownAdapterError


class Pair(NamedTuple):
    """One module's update, laid out as mlx_lm's LoRA layers hold it.

    Dense: ``a`` (inputs, rank), ``b`` (rank, outputs). Experts: ``a`` (experts, inputs, rank),
    ``b`` (experts, rank, outputs), both as transposed views, which is what ``gather_mm`` is given
    there too. Embedding: ``a`` (tokens, rank), ``b`` (rank, dims).
    """

    a: mx.array
    b: mx.array


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter's arrays in MLX memory. ``pairs`` has a place for each wrapped module, in the
    model's order; None where the adapter has nothing there."""

    scale: float
    pairs: tuple[Pair | None, ...]
    nbytes: int


class Part(NamedTuple):
    """Some places along the leading axis, sorted, and a factor for each."""

    at: mx.array
    factor: mx.array


@dataclass(frozen=True, slots=True)
class Term:
    """One adapter of the next pass, and its factor: weight times the adapter's own scale.

    ``factor`` is a number where all rows weigh the adapter alike; else an array (rows,) that is 0
    for the rows without it. Then ``part`` says which rows have it, or is None if all do.
    """

    pairs: tuple[Pair | None, ...]
    factor: float | mx.array
    part: Part | None = None
    columns: dict[tuple[bool, mx.Dtype, int], mx.array] = field(default_factory=dict)

    def weigh(self, z: mx.array, part: Part | None) -> mx.array:
        """``z`` (rows, ...) times the factor; where ``part`` is given, ``z`` is only that part."""
        if isinstance(self.factor, float):
            return z if self.factor == 1.0 else self.factor * z  # times 1 has the same bits
        # In z's dtype, as a number would be: a row of a batch is computed as it is alone.
        key = (part is None, z.dtype, z.ndim)
        column = self.columns.get(key)
        if column is None:
            factor = self.factor if part is None else part.factor
            column = factor.astype(z.dtype).reshape((-1,) + (1,) * (z.ndim - 1))
            self.columns[key] = column
        return column * z

    def spread(self, rows: mx.array, places: mx.array) -> Term:
        """The same over (token, expert) pairs that were sorted by expert.

        ``rows`` (pairs,) is the row of each; ``places`` (batch rows, pairs of a row) says where
        the pairs of a row went.
        """
        assert isinstance(self.factor, mx.array)
        factor = self.factor[rows]
        if self.part is None:
            return Term(self.pairs, factor)
        at = mx.sort(places[self.part.at].flatten())
        return Term(self.pairs, factor, Part(at, factor[at]))


@dataclass(slots=True)
class Active:
    """The one object that all wrappers of a model read; changing it changes them all."""

    terms: tuple[Term, ...] = ()
    rows: int | None = None  # None: all rows are alike, however many
    scales: Mapping[int, mx.array] = field(default_factory=dict)
    """By a module's index, what its inputs are multiplied by: see ``scaling``."""


def uniform_terms(mix: Mix, bound: dict[str, Prepared]) -> tuple[Term, ...]:
    """The terms of a batch whose rows all have this mix. Raises UnknownAdapterError."""
    return tuple(
        Term(adapter.pairs, weight * adapter.scale)
        for adapter, weight in ((find(name, bound), weight) for name, weight in mix.weights)
    )


def row_terms(mixes: Sequence[Mix], bound: dict[str, Prepared]) -> tuple[Term, ...]:
    """The terms of a batch with a mix for each row: each adapter of any row once, sorted by name.

    Raises UnknownAdapterError.
    """
    weights = [dict(mix.weights) for mix in mixes]
    terms = []
    for name in sorted({name for row in weights for name in row}):
        adapter = find(name, bound)
        factors = [row.get(name, 0.0) * adapter.scale for row in weights]
        having = [index for index, row in enumerate(weights) if name in row]
        part = None
        if len(having) < len(weights):
            part = Part(mx.array(having), mx.array([factors[index] for index in having]))
        terms.append(Term(adapter.pairs, mx.array(factors), part))
    return tuple(terms)


def check_rows(rows: int, mixes: int) -> None:
    """Raise EngineError unless there is a mix for each row."""
    if rows != mixes:
        raise EngineError(
            f"The batch has {rows} rows, and mixes were set for {mixes}.",
            fix="Call Slots.use with one mix for each row before the forward pass.",
        )


def find(name: str, bound: dict[str, Prepared]) -> Prepared:
    """The bound adapter of that key. Raises UnknownAdapterError."""
    try:
        return bound[name]
    except KeyError:
        known = ", ".join(sorted(bound)) or "none"
        raise UnknownAdapterError(
            f"No adapter {name!r} is bound; bound are: {known}.", param="kiki.adapters"
        ) from None
