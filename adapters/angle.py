"""The angle between two adapters' updates: how far a new one writes over an older one.

An update is dW = s * B @ A, with s = alpha / rank. As vectors of all their entries, two updates
have the inner product

    <dWa, dWb> = sa * sb * trace((Ba @ Aa).T @ (Bb @ Ab))
               = sa * sb * trace((Ba.T @ Bb) @ (Ab @ Aa.T))
               = sa * sb * sum((Ba.T @ Bb) * (Aa @ Ab.T)),

a sum over two rank x rank matrices: dW, thousands of times larger, is never made. The angle is
arccos(|<dWa, dWb>| / (|dWa| |dWb|)), so s drops out. It is unsigned, from 0 to 90 degrees: an
update that points the opposite way undoes the older one, which is as bad as repeating it.

The layers (and experts) of one kind of module count as one long vector, so a kind's angle is
weighted by how much each layer was changed. The mean over the kinds weighs each kind the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK_BYTES = 128 * 2**20  # of one stack of matrices in float64; bounds the memory of a product


@dataclass(frozen=True, slots=True)
class ModuleAngle:
    """The angle of one module, in degrees; of one expert's part where ``expert`` is given."""

    module: str
    degrees: float
    expert: int | None = None

    def __str__(self) -> str:
        expert = "" if self.expert is None else f" expert {self.expert}"
        return f"{self.module}{expert}"


@dataclass(frozen=True, slots=True)
class KindAngle:
    """The angle of one kind of module over all shared layers, and its lowest module."""

    kind: str
    degrees: float
    modules: int
    lowest: ModuleAngle


@dataclass(frozen=True, slots=True)
class AngleReport:
    """All angles between the adapters ``a`` and ``b``, in degrees from 0 (alike) to 90.

    ``mean`` is over the kinds. ``experts`` maps each mixture's module to its experts' angles, NaN
    where either update is zero. ``skipped`` are the modules that only one adapter has, or that
    have different shapes; ``idle`` those with an update of zero, which has no direction.
    """

    a: str
    b: str
    mean: float
    kinds: tuple[KindAngle, ...]
    experts: Mapping[str, tuple[float, ...]]
    lowest_expert: ModuleAngle | None
    skipped: tuple[str, ...]
    idle: tuple[str, ...]

    @property
    def lowest(self) -> KindAngle:
        return min(self.kinds, key=lambda kind: kind.degrees)


def angles(a: Lora, b: Lora) -> AngleReport:
    """Compare the updates of two adapters.

    Raises AdapterError when they share no module with an update, or one isn't finite.
    """
    shared = shared_modules(a, b)
    sums: dict[str, list[tuple[str, NDArray[np.float64]]]] = {}
    experts: dict[str, tuple[float, ...]] = {}
    idle = []
    for name in shared:
        one, other = a.weights[name], b.weights[name]
        products = _products(one, other, f"{a.name} and {b.name}: {name}")
        total = products.sum(axis=1)
        sums.setdefault(one.kind, []).append((name, total))
        if min(total[1], total[2]) == 0:
            idle.append(name)
        elif one.experts is not None:
            experts[name] = tuple(degrees(*products).tolist())
    kinds = tuple(filter(None, (_kind(kind, sums[kind]) for kind in sorted(sums))))
    if not kinds:
        raise AdapterError(
            f"{a.name} and {b.name} share no module that both change, so there is no angle.",
            fix="They were trained for different base models, or one of them is empty: "
            "kiki adapters check.",
        )
    return AngleReport(
        a=a.name,
        b=b.name,
        mean=math.fsum(kind.degrees for kind in kinds) / len(kinds),
        kinds=kinds,
        experts=experts,
        lowest_expert=_lowest_expert(experts),
        skipped=tuple(sorted((a.weights.keys() | b.weights.keys()) - set(shared))),
        idle=tuple(idle),
    )


def shared_modules(a: Lora, b: Lora) -> list[str]:
    """The modules that both adapt, in the same shape, in the order of ``a``."""
    return [
        name
        for name in a.weights
        if name in b.weights and shape_of(a.weights[name]) == shape_of(b.weights[name])
    ]


def shape_of(weight: LoraWeight) -> tuple[int | None, int, int]:
    """Experts, outputs and inputs of the weight that it updates; the rank may differ."""
    return weight.experts, int(weight.b.shape[-2]), int(weight.a.shape[-1])


def inner_products(
    rows: Sequence[LoraWeight], columns: Sequence[LoraWeight]
) -> NDArray[np.float64]:
    """<B @ A, B' @ A'> of each row with each column: (experts, rows, columns), without scales.

    All must be of one shape; a dense module counts as one expert. The matrices are stacked, so
    that many adapters cost a few large products in place of many small ones; given the same list
    twice, BLAS sees that the products are symmetric, and does half the work.
    """
    import numpy as np

    experts = rows[0].experts or 1
    result = np.empty((experts, len(rows), len(columns)))
    starts = [np.cumsum([0, *(weight.rank for weight in side)])[:-1] for side in (rows, columns)]
    for part in _parts(experts, rows, columns):
        with np.errstate(over="ignore", invalid="ignore"):  # the caller judges what isn't finite
            left_a, left_b = _stack_a(rows, part), _stack_b(rows, part)
            right_a = left_a if columns is rows else _stack_a(columns, part)
            right_b = left_b if columns is rows else _stack_b(columns, part)
            a = left_a @ right_a.swapaxes(1, 2)
            b = left_b.swapaxes(1, 2) @ right_b
            by_row = np.add.reduceat(a * b, starts[0], axis=1)
            result[part] = np.add.reduceat(by_row, starts[1], axis=2)
    return result


def degrees(
    product: NDArray[np.float64], square_a: NDArray[np.float64], square_b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Unsigned angles from inner products and squared norms; NaN where a norm is zero."""
    import numpy as np

    norms = np.sqrt(square_a) * np.sqrt(square_b)
    cosine = np.full_like(norms, np.nan)
    np.divide(np.abs(product), norms, out=cosine, where=norms > 0)
    angle: NDArray[np.float64] = np.degrees(np.arccos(np.minimum(cosine, 1)))
    return angle


def _products(a: LoraWeight, b: LoraWeight, where: str) -> NDArray[np.float64]:
    """Inner product, squared norm of ``a``, squared norm of ``b``, by expert: (3, experts)."""
    import numpy as np

    pair = [a, b]
    both = inner_products(pair, pair)
    if not np.isfinite(both).all():
        raise AdapterError(
            f"{where} isn't finite, so there is no angle.", fix="Look with: kiki adapters check."
        )
    squares = np.maximum(both[:, [0, 1], [0, 1]], 0).T  # rounding can take a zero below it
    return np.stack([both[:, 0, 1], *squares])


def _kind(kind: str, sums: list[tuple[str, NDArray[np.float64]]]) -> KindAngle | None:
    """The kind's angle from its modules' sums; None where no module is changed by both."""
    changed = [(name, total) for name, total in sums if min(total[1], total[2]) > 0]
    if not changed:
        return None
    modules = [ModuleAngle(name, float(degrees(*total))) for name, total in changed]
    product, square_a, square_b = (sum(part) for part in zip(*(t for _, t in sums), strict=True))
    whole = float(degrees(product, square_a, square_b))
    return KindAngle(kind, whole, len(sums), min(modules, key=lambda angle: angle.degrees))


def _lowest_expert(experts: Mapping[str, tuple[float, ...]]) -> ModuleAngle | None:
    found = (
        ModuleAngle(module, angle, expert)
        for module, angles in experts.items()
        for expert, angle in enumerate(angles)
        if not math.isnan(angle)
    )
    return min(found, key=lambda angle: angle.degrees, default=None)


def _parts(
    experts: int, rows: Sequence[LoraWeight], columns: Sequence[LoraWeight]
) -> Iterator[slice]:
    """Runs of experts whose stacks fit the memory meant for them."""
    longest = max(rows[0].a.shape[-1], rows[0].b.shape[-2])
    ranks = sum(weight.rank for weight in (*rows, *columns))
    step = max(1, _CHUNK_BYTES // (8 * ranks * longest))
    return (slice(start, start + step) for start in range(0, experts, step))


def _stack_a(weights: Sequence[LoraWeight], part: slice) -> NDArray[np.float64]:
    """(experts, all ranks, inputs)"""
    import numpy as np

    return np.concatenate([_by_expert(w.a)[part] for w in weights], axis=1, dtype=np.float64)


def _stack_b(weights: Sequence[LoraWeight], part: slice) -> NDArray[np.float64]:
    """(experts, outputs, all ranks)"""
    import numpy as np

    return np.concatenate([_by_expert(w.b)[part] for w in weights], axis=2, dtype=np.float64)


def _by_expert(array: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return array if array.ndim == 3 else array[None]
