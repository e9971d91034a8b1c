"""Is an adapter fit to serve? Dead, broken and misplaced ones are found before they are loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adapters.lora import Lora, LoraWeight
from kiki.names import base_key, same_base

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Level = Literal["sick", "warning"]
Code = Literal[
    "unreadable", "empty", "zero-b", "zero-a", "not-finite", "wrong-base",
    "base-unnamed", "zero-experts", "rank", "alpha", "missing-kinds", "uneven", "layers",
]  # fmt: skip

RANK, ALPHA = 16, 16.0
LAYERS = 32  # of the 40 that Qwen3.6-35B-A3B has
MOE_KINDS = frozenset(
    {f"linear_attn.{name}" for name in ("in_proj_a", "in_proj_b", "in_proj_qkv", "in_proj_z")}
    | {"linear_attn.out_proj", "mlp.gate", "mlp.shared_expert_gate"}
    | {f"self_attn.{name}_proj" for name in "qkvo"}
    | {f"mlp.{part}.{name}_proj" for part in ("shared_expert", "switch_mlp")
       for name in ("down", "gate", "up")}
)  # fmt: skip
"""The 17 kinds of modules that an adapter of Qwen3.6-35B-A3B has."""

ZERO_NORM = 1e-6  # a lora_B of a smaller Frobenius norm was never trained: it starts as zeros
_MOE = frozenset({base_key("Qwen3.6-35B-A3B"), base_key("Qwen3.5-35B-A3B")})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about an adapter. A sick one never reaches serving; a warning does.

    ``detail`` is a sentence for people; ``where`` names the modules or tensors it is about.
    """

    level: Level
    code: Code
    detail: str
    where: tuple[str, ...] = ()


def examine(
    lora: Lora, *, base: str | None = None, kinds: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Everything that is wrong or odd with an adapter, the sick findings first.

    ``base`` is the expected base model's name, ``kinds`` the kinds of modules that it has; what
    isn't given isn't checked, but for Qwen3.6-35B-A3B, whose kinds and layers are known. Each
    module's arrays are asked for once and let go, so that lazily loaded ones never lie in memory
    all together.
    """
    if not lora.weights:
        return (Finding("sick", "empty", "It holds no LoRA weights."),)
    known_as = base or lora.base
    moe = base_key(known_as) in _MOE
    findings = [
        *_weights(lora),
        *_base(lora, base),
        *_shape(lora),
        *_kinds(lora, MOE_KINDS if moe else kinds),
        *_uneven(lora),
    ]
    if moe:
        findings += _layers(lora)
    return tuple(sorted(findings, key=lambda finding: finding.level != "sick"))


def is_sick(findings: Iterable[Finding]) -> bool:
    """Must the adapter be kept from serving?"""
    return any(finding.level == "sick" for finding in findings)


def _weights(lora: Lora) -> Iterator[Finding]:
    zero_a, zero_b, broken, experts = [], [], [], []
    for name in lora.weights:
        weight = lora.weights[name]
        for half, array in (("lora_A", weight.a), ("lora_B", weight.b)):
            if bad := _not_finite(array):
                broken.append(f"{name}.{half} ({bad} of {array.size})")
        if not weight.a.any():
            zero_a.append(name)
        idle, of = _idle_experts(weight)
        if idle == of:
            zero_b.append(name)
        elif idle:
            experts.append(f"{name} ({idle} of {of})")
    if broken:
        yield Finding(
            "sick", "not-finite", f"NaN or infinity in {_count(broken, 'tensor')}.", tuple(broken)
        )
    if zero_b:
        yield _zero("zero-b", "lora_B", zero_b, lora, "never trained, it changes nothing")
    if zero_a:
        yield _zero("zero-a", "lora_A", zero_a, lora, "its update is zero whatever lora_B is")
    if experts:
        yield Finding(
            "warning",
            "zero-experts",
            f"In {_count(experts, 'module')}, some experts have a lora_B of zeros: "
            "no training token reached them.",
            tuple(experts),
        )


def _zero(code: Code, half: str, modules: list[str], lora: Lora, why: str) -> Finding:
    share = "every module" if len(modules) == len(lora.weights) else _count(modules, "module")
    return Finding("sick", code, f"{half} is all zeros in {share}: {why}.", tuple(modules))


def _not_finite(array: NDArray[np.floating[Any]]) -> int:
    import numpy as np

    finite = np.isfinite(array)
    return 0 if finite.all() else int(array.size - np.count_nonzero(finite))


def _idle_experts(weight: LoraWeight) -> tuple[int, int]:
    """How many experts have a lora_B of zeros, and of how many; a dense module counts as one."""
    import numpy as np

    rows = weight.b.reshape(weight.experts or 1, -1).astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ei,ei->e", rows, rows)
    return int(np.count_nonzero(squares <= ZERO_NORM**2)), len(rows)


def _base(lora: Lora, base: str | None) -> Iterator[Finding]:
    if not base:
        return
    if not lora.base:
        yield Finding(
            "warning", "base-unnamed", f"It doesn't say its base model; {base} was expected."
        )
    elif not same_base(lora.base, base):
        yield Finding(
            "sick", "wrong-base", f"It was trained for {lora.base}; the base model is {base}."
        )


def _shape(lora: Lora) -> Iterator[Finding]:
    if lora.rank != RANK:
        yield Finding("warning", "rank", f"Its rank is {lora.rank}; {RANK} is the rule.")
    if lora.alpha != ALPHA:
        yield Finding("warning", "alpha", f"Its alpha is {lora.alpha:g}; {ALPHA:g} is the rule.")


def _kinds(lora: Lora, expected: Collection[str]) -> Iterator[Finding]:
    found = {_kind(name) for name in lora.weights}
    if missing := sorted(set(expected) - found):
        yield Finding(
            "warning",
            "missing-kinds",
            f"{len(missing)} of the base's {len(set(expected))} kinds of modules aren't adapted.",
            tuple(missing),
        )


def _uneven(lora: Lora) -> Iterator[Finding]:
    """Kinds that a layer lacks though it adapts their block, and other layers have them.

    Blocks (``self_attn``, ``mlp``) are looked at one by one: a hybrid's layers have either kind
    of attention.
    """
    adapted = {(_layer(name), _kind(name)) for name in lora.weights}
    kinds = {kind for _, kind in adapted}
    blocks = {(layer, kind.split(".")[0]) for layer, kind in adapted}
    missing = sorted(
        (layer, kind)
        for layer, block in blocks
        for kind in kinds
        if kind.split(".")[0] == block and (layer, kind) not in adapted
    )
    if missing:
        yield Finding(
            "warning",
            "uneven",
            f"{_count(missing, 'module')} missing: other layers have theirs.",
            tuple(f"layers.{layer}.{kind}" for layer, kind in missing),
        )


def _layers(lora: Lora) -> Iterator[Finding]:
    layers = len({_layer(name) for name in lora.weights})
    if layers != LAYERS:
        yield Finding(
            "warning",
            "layers",
            f"{layers} layers are adapted; {LAYERS} of 40 is the rule (8 learn too little, "
            "40 overfit).",
        )


def _layer(name: str) -> int:
    return int(name.split(".")[1])


def _kind(name: str) -> str:
    return name.split(".", 2)[2]


def _count(things: Collection[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
