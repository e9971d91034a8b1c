"""What the slots are compared to: mlx_lm's own LoRA layers, and the update added to the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.qwen3_5_moe import Model
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model

from adapters.engines.mlx.tiny import random_model
from adapters.lora import Lora

PREFIX = "language_model.model."
KINDS = (
    *(f"linear_attn.{name}" for name in ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")),
    "linear_attn.out_proj",
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    "mlp.gate",
    *(f"mlp.switch_mlp.{name}_proj" for name in ("gate", "up", "down")),
    *(f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")),
    "mlp.shared_expert_gate",
)

make_model: Mapping[str, Callable[[], Model]] = {
    "float32": partial(random_model, seed=3),
    "4-bit": partial(random_model, seed=3, bits=4),
    "4-bit, bfloat16": partial(random_model, seed=3, bits=4, dtype=mx.bfloat16),
}


def only(lora: Lora, *kinds: str) -> Lora:
    """The part of the adapter that changes these kinds of modules."""
    weights = {name: weight for name, weight in lora.weights.items() if weight.kind in kinds}
    assert weights
    return replace(lora, weights=weights)


def scaled(lora: Lora, scale: float) -> Lora:
    return replace(lora, alpha=scale * lora.rank)


def with_mlx_lora(model: Model, lora: Lora) -> Model:
    """``model`` with mlx_lm's LoRA layers, which hold the adapter's arrays."""
    config = {"rank": lora.rank, "scale": lora.scale, "dropout": 0.0}
    kinds = sorted({weight.kind for weight in lora.weights.values()})
    linear_to_lora_layers(model, len(model.layers), {**config, "keys": kinds})
    arrays = []
    for name, weight in lora.weights.items():
        dense = weight.experts is None
        a, b = (weight.a.T, weight.b.T) if dense else (weight.a, weight.b)
        arrays.append((f"{PREFIX}{name}.lora_a", mx.array(np.ascontiguousarray(a))))
        arrays.append((f"{PREFIX}{name}.lora_b", mx.array(np.ascontiguousarray(b))))
    model.load_weights(arrays, strict=False)
    model.eval()
    return model


def with_dense_sum(model: Model, mix: Sequence[tuple[Lora, float]]) -> Model:
    """An unquantised ``model`` whose weights are W + sum(weight * scale * B @ A)."""
    modules = dict(model.named_modules())
    for lora, factor in mix:
        for name, weight in lora.weights.items():
            module = modules[PREFIX + name]
            update = factor * lora.scale * (weight.b.astype(float) @ weight.a.astype(float))
            module.weight = module.weight + mx.array(update.astype(np.float32))
    return model


def dequantized(model: Model) -> Model:
    """The same model in float32, with the values that its quantised weights stand for."""
    dequantize_model(model)
    model.eval()
    return model


def arrays_of(tree: Any) -> dict[str, mx.array]:
    """A module's parameters, by their names."""
    return dict(tree_flatten(tree))
