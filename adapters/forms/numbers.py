"""The number format that an adapter is written in, and what is lost by it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from adapters.forms.halves import with_rank
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Dtype = Literal["f16", "f32"]


def uniform(lora: Lora) -> Lora:
    """``lora`` with every weight filled up to one rank, at the same scale."""
    rank = max(weight.rank for weight in lora.weights.values())
    weights = {name: with_rank(weight, rank) for name, weight in lora.weights.items()}
    alpha = lora.alpha if rank == lora.rank else lora.scale * rank
    return replace(lora, rank=rank, alpha=alpha, weights=weights)


def to_dtype(lora: Lora, dtype: Dtype | None) -> tuple[Lora, float]:
    """``lora`` in ``dtype``, and the largest error of a number that this rounded.

    None keeps each tensor's own format (float16 or float32), which rounds nothing.
    Raises AdapterError when a finite number is too large for ``dtype``.
    """
    worst = 0.0
    weights = {}
    for name, weight in lora.weights.items():
        a, lost_a = _cast(weight.a, dtype, f"{lora.name}: {name}.lora_a")
        b, lost_b = _cast(weight.b, dtype, f"{lora.name}: {name}.lora_b")
        weights[name] = LoraWeight(name, a, b)
        worst = max(worst, lost_a, lost_b)
    return replace(lora, weights=weights), worst


def _cast(
    array: NDArray[np.floating[Any]], dtype: Dtype | None, what: str
) -> tuple[NDArray[np.floating[Any]], float]:
    import numpy as np

    half = array.dtype == np.float16 if dtype is None else dtype == "f16"
    with np.errstate(over="ignore"):
        cast: NDArray[np.floating[Any]] = (
            array.astype(np.float16, copy=False) if half else array.astype(np.float32, copy=False)
        )
    if cast.dtype.itemsize >= array.dtype.itemsize:
        return cast, 0.0
    finite = np.isfinite(array)
    if not np.isfinite(cast[finite]).all():
        raise AdapterError(
            f"{what} isn't finite in {'f16' if half else 'f32'}: "
            f"it holds {float(np.abs(array[finite]).max()):.3g}.",
            fix="Write it as f32.",
        )
    if not finite.any():
        return cast, 0.0
    wide = array[finite].astype(np.float64)
    return cast, float(np.abs(wide - cast[finite].astype(np.float64)).max())
