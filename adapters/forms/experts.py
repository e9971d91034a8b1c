"""The experts' gate and up projections as one module, and back; both ways are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.forms.gguf_names import FUSED_KIND, GATE, UP
from adapters.lora import LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping


def split_gate_up(weight: LoraWeight) -> list[LoraWeight]:
    """The gate and up halves of a fused update: the upper and lower rows of its ``b``.

    A block-diagonal one, as ``fuse_gate_up`` makes it, gives back the two that it was made of.
    Raises AdapterError for an odd number of outputs.
    """
    if weight.experts is None or weight.b.shape[1] % 2:
        raise AdapterError(f"{weight.module} has the shape {weight.b.shape}; it is no fused one.")
    stem = weight.module.removesuffix(FUSED_KIND)
    outputs, half = weight.b.shape[1] // 2, weight.rank // 2
    gate, up = weight.b[:, :outputs], weight.b[:, outputs:]
    a_gate = a_up = weight.a
    if weight.rank % 2 == 0 and not gate[..., half:].any() and not up[..., :half].any():
        a_gate, a_up = weight.a[:, :half], weight.a[:, half:]
        gate, up = gate[..., :half], up[..., half:]
    return [LoraWeight(stem + GATE, a_gate, gate), LoraWeight(stem + UP, a_up, up)]


def fuse_gate_up(gate: LoraWeight, up: LoraWeight) -> LoraWeight:
    """One update of the stacked weight (gate's rows above up's).

    Its rank is the sum of both, block-diagonal in ``b``; where they share ``a`` it stays.
    Raises AdapterError unless both are for the same experts and inputs.
    """
    import numpy as np

    if gate.experts != up.experts or gate.a.shape[2] != up.a.shape[2]:
        raise AdapterError(f"{gate.module} and {up.module} have different experts or inputs.")

    module = gate.module.removesuffix(GATE) + FUSED_KIND
    if np.array_equal(gate.a, up.a):
        return LoraWeight(module, gate.a, np.concatenate([gate.b, up.b], axis=1))
    above = np.pad(gate.b, [(0, 0), (0, 0), (0, up.rank)])
    below = np.pad(up.b, [(0, 0), (0, 0), (gate.rank, 0)])
    a = np.concatenate([gate.a, up.a], axis=1)
    return LoraWeight(module, a, np.concatenate([above, below], axis=1))


def fused_layer(weights: Mapping[str, LoraWeight], layer: int) -> LoraWeight | None:
    """The fused update of ``layer``; a missing half counts as no change. None without both."""
    import numpy as np

    stem = f"layers.{layer}."
    gate, up = weights.get(stem + GATE), weights.get(stem + UP)
    if gate is None and up is None:
        return None
    if up is None:
        assert gate is not None
        up = LoraWeight(stem + UP, gate.a, np.zeros_like(gate.b))
    if gate is None:
        gate = LoraWeight(stem + GATE, up.a, np.zeros_like(up.b))
    return fuse_gate_up(gate, up)
