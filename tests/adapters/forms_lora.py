"""Random adapters for the tests of their forms, and what such an adapter does to a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from adapters.forms import BaseShape, Heads
from adapters.forms.gguf_names import ARCHITECTURES, target_of
from adapters.lora import Lora, LoraWeight

HIDDEN, INNER, SHARED, EXPERTS = 16, 8, 10, 3
HEADS = Heads(4, 2, linear_key=2, linear_value=6, linear_key_size=4, linear_value_size=2)
_VALUES = HEADS.linear_value * HEADS.linear_value_size
_KEYS = HEADS.linear_key * HEADS.linear_key_size

# (outputs, inputs) of each kind of module of a Qwen3.6 in small; experts have three axes.
SIZES: dict[str, tuple[int, int]] = {
    "self_attn.q_proj": (64, HIDDEN),
    "self_attn.k_proj": (16, HIDDEN),
    "self_attn.v_proj": (16, HIDDEN),
    "self_attn.o_proj": (HIDDEN, 64),
    "linear_attn.in_proj_qkv": (2 * _KEYS + _VALUES, HIDDEN),
    "linear_attn.in_proj_z": (_VALUES, HIDDEN),
    "linear_attn.in_proj_a": (HEADS.linear_value, HIDDEN),
    "linear_attn.in_proj_b": (HEADS.linear_value, HIDDEN),
    "linear_attn.out_proj": (HIDDEN, _VALUES),
    "mlp.gate": (EXPERTS, HIDDEN),
    "mlp.switch_mlp.gate_proj": (INNER, HIDDEN),
    "mlp.switch_mlp.up_proj": (INNER, HIDDEN),
    "mlp.switch_mlp.down_proj": (HIDDEN, INNER),
    "mlp.shared_expert_gate": (1, HIDDEN),
    "mlp.shared_expert.gate_proj": (SHARED, HIDDEN),
    "mlp.shared_expert.up_proj": (SHARED, HIDDEN),
    "mlp.shared_expert.down_proj": (HIDDEN, SHARED),
}
DENSE_SIZES = {
    **{kind: SIZES[kind] for kind in SIZES if kind.startswith("self_attn.")},
    "mlp.gate_proj": (24, HIDDEN),
    "mlp.up_proj": (24, HIDDEN),
    "mlp.down_proj": (HIDDEN, 24),
}
Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Plan:
    """A model in small: the sizes of its modules by kind."""

    architecture: str
    sizes: dict[str, tuple[int, int]]
    heads: Heads = HEADS

    def base(self, layers: int, *, fused: bool = False) -> BaseShape:
        """Its shape, with every module in every layer; ``fused`` has gate and up in one."""
        weights: dict[str, tuple[int, ...]] = {}
        for layer in range(layers):
            for kind, size in self.sizes.items():
                target = target_of(f"layers.{layer}.{kind}", self.architecture)
                assert target is not None
                weights[target] = (EXPERTS, *size) if "switch_mlp" in kind else size
            if fused:
                gate = weights.pop(f"blk.{layer}.ffn_gate_exps.weight")
                del weights[f"blk.{layer}.ffn_up_exps.weight"]
                weights[f"blk.{layer}.ffn_gate_up_exps.weight"] = (EXPERTS, 2 * gate[1], gate[2])
        return BaseShape(self.architecture, self.heads, layers, weights)


QWEN35MOE = Plan("qwen35moe", SIZES)
QWEN3MOE = Plan(
    "qwen3moe", {kind: SIZES[kind] for kind in SIZES if kind in ARCHITECTURES["qwen3moe"].modules}
)
LLAMA = Plan("llama", DENSE_SIZES)


def make_lora(
    plan: Plan,
    *,
    layers: range = range(2),
    rank: int = 2,
    alpha: float = 4.0,
    dtype: type[np.floating] = np.float32,
    kinds: list[str] | None = None,
    seed: int = 0,
) -> Lora:
    """A random adapter of every module in ``kinds`` (all of them unless given)."""
    chance = np.random.default_rng(seed)
    weights = {}
    for layer in layers:
        for kind in kinds or plan.sizes:
            outputs, inputs = plan.sizes[kind]
            experts = (EXPERTS,) if "switch_mlp" in kind else ()
            module = f"layers.{layer}.{kind}"
            a = chance.normal(size=(*experts, rank, inputs)).astype(dtype)
            b = chance.normal(size=(*experts, outputs, rank)).astype(dtype)
            weights[module] = LoraWeight(module, a, b)
    return Lora("tiny", "Qwen/Qwen3.6-35B-A3B" if plan is QWEN35MOE else "", rank, alpha, weights)


@st.composite
def loras(draw: Callable[..., Any], plan: Plan) -> Lora:
    """Adapters of some modules in some layers, in either number format."""
    first = draw(st.integers(0, 2))
    return make_lora(
        plan,
        layers=range(first, first + draw(st.integers(1, 2))),
        rank=draw(st.integers(1, 5)),
        alpha=draw(st.one_of(st.integers(1, 64).map(float), st.floats(0.01, 100))),
        dtype=draw(st.sampled_from([np.float16, np.float32])),
        kinds=draw(st.lists(st.sampled_from(sorted(plan.sizes)), min_size=1, unique=True)),
        seed=draw(st.integers(0, 2**31)),
    )


def updates(lora: Lora) -> dict[str, Array]:
    """What the adapter adds to each weight, by module, in float64."""
    return {
        name: lora.scale * (weight.b.astype(np.float64) @ weight.a.astype(np.float64))
        for name, weight in lora.weights.items()
    }


def assert_same_updates(found: Lora, expected: Lora, *, tolerance: float = 1e-6) -> None:
    """Both do the same to every weight; a module that only one has must do nothing."""
    ours, theirs = updates(found), updates(expected)
    for name in ours.keys() | theirs.keys():
        update = theirs.get(name, ours.get(name))
        assert update is not None
        zero = np.zeros_like(update)
        error = np.abs(ours.get(name, zero) - theirs.get(name, zero)).max()
        assert error <= tolerance * max(1.0, float(np.abs(update).max())), name


def assert_same_numbers(found: Lora, expected: Lora) -> None:
    """Rank, scale and every tensor are equal bit for bit."""
    assert (found.rank, found.alpha) == (expected.rank, expected.alpha)
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        for ours, theirs in ((found.weights[name].a, weight.a), (found.weights[name].b, weight.b)):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
