"""Putting tensors named ``MODULE.lora_a`` and ``MODULE.lora_b`` together as LoraWeights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Half = Literal["A", "B"]


@dataclass(frozen=True, slots=True)
class Named:
    """One tensor of a file: its ``module`` and ``half``, as ``name`` says."""

    name: str
    module: str
    half: Half
    array: NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both halves of one module, as the file has them."""

    module: str
    a: NDArray[np.floating[Any]]
    b: NDArray[np.floating[Any]]


def pair_up(found: Iterable[Named], where: str) -> list[Pair]:
    """Each module's two halves, in the order of the modules' first tensors.

    Raises AdapterError when a half is missing or comes twice, or when there are none at all.
    """
    halves: dict[str, dict[Half, Named]] = {}
    for tensor in found:
        pair = halves.setdefault(tensor.module, {})
        if tensor.half in pair:
            raise AdapterError(
                f"{where}: {tensor.name!r} and {pair[tensor.half].name!r} are the same weight."
            )
        pair[tensor.half] = tensor
    if not halves:
        raise AdapterError(f"{where} holds no weights.")
    for module, pair in halves.items():
        if len(pair) != 2:
            raise AdapterError(f"{where}: {module} has only one of lora_A and lora_B.")
    return [Pair(module, pair["A"].array, pair["B"].array) for module, pair in halves.items()]


def check_weight(weight: LoraWeight, rank: int | None, where: str) -> None:
    """Raise AdapterError unless the shapes of ``a`` and ``b`` fit each other (and ``rank``)."""
    a, b = weight.a, weight.b
    fits = a.ndim == b.ndim and a.ndim in (2, 3) and min(a.shape + b.shape) > 0
    fits = fits and a.shape[:-2] == b.shape[:-2] and a.shape[-2] == b.shape[-1]
    if fits and rank in (None, a.shape[-2]):
        return
    said = "" if rank is None else f", but the config says rank {rank}"
    raise AdapterError(f"{where}: {weight.module} has shapes A {a.shape} and B {b.shape}{said}.")


def with_scale(weight: LoraWeight, factor: float) -> LoraWeight:
    """``weight`` with ``factor`` in its ``b``, as float32. A factor of 1 changes nothing."""
    import numpy as np

    if factor == 1:
        return weight
    return replace(weight, b=weight.b.astype(np.float32) * np.float32(factor))


def with_rank(weight: LoraWeight, rank: int) -> LoraWeight:
    """``weight`` filled up with zeros to ``rank``; its update stays the same bit for bit."""
    import numpy as np

    more = rank - weight.rank
    if more == 0:
        return weight
    experts = [(0, 0)] * (weight.a.ndim - 2)
    return replace(
        weight,
        a=np.pad(weight.a, [*experts, (0, more), (0, 0)]),
        b=np.pad(weight.b, [*experts, (0, 0), (0, more)]),
    )


def make_lora(
    name: str, base: str, scale: float, alpha: float | None, weights: Mapping[str, LoraWeight]
) -> Lora:
    """A Lora of the largest rank among ``weights``, the others filled up with zeros.

    ``scale`` is that of all of them; ``alpha`` is given where it is known exactly.
    """
    rank = max(weight.rank for weight in weights.values())
    ordered = sorted(weights.values(), key=lambda weight: (weight.layer, weight.kind))
    return Lora(
        name=name,
        base=base,
        rank=rank,
        alpha=scale * rank if alpha is None else alpha,
        weights={weight.module: with_rank(weight, rank) for weight in ordered},
    )
