"""A mixture of experts in PEFT's form, in its two layouts.

*Separate*: a module for each expert and projection, ``mlp.experts.7.gate_proj``, as for models
that keep their experts apart.

*Fused*: PEFT's ``target_parameters`` on transformers 5's ``mlp.experts.gate_up_proj`` and
``down_proj``. Both wrap the module ``mlp.experts``, the first one innermost: ``down_proj`` is
``mlp.experts``, and ``gate_up_proj`` is ``mlp.experts.base_layer`` (or ``mlp.experts`` where it
is the only one). ``lora_A`` is (experts * rank, inputs), expert by expert; ``lora_B`` is
(outputs, rank * experts), rank by rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapters.forms.experts import split_gate_up
from adapters.forms.halves import Pair, check_weight, with_scale
from adapters.forms.peft_config import Scales
from adapters.lora import LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    pass

_SEPARATE = re.compile(
    r".*?(layers\.[0-9]+\.mlp)\.experts\.(0|[1-9][0-9]*)\.(gate_proj|up_proj|down_proj)"
)
_FUSED = re.compile(r"(.*?(layers\.[0-9]+\.mlp)\.experts)(\.base_layer)?")


def is_separate(path: str) -> bool:
    """Whether ``path`` is one expert's module."""
    return _SEPARATE.fullmatch(path) is not None


def is_fused(path: str) -> bool:
    """Whether ``path`` is a wrapped parameter of all experts."""
    return _FUSED.fullmatch(path) is not None


def read_separate(weights: list[LoraWeight], where: str) -> list[LoraWeight]:
    """One expert's weights each, stacked. Raises AdapterError unless all experts are there."""
    import numpy as np

    stacks: dict[str, dict[int, LoraWeight]] = {}
    for weight in weights:
        match = _SEPARATE.fullmatch(weight.module)
        assert match is not None  # the caller chose them by is_separate
        stacks.setdefault(f"{match[1]}.switch_mlp.{match[3]}", {})[int(match[2])] = weight
    made = []
    for module, experts in stacks.items():
        ordered = [experts[number] for number in sorted(experts)]
        if sorted(experts) != list(range(len(experts))):
            missing = next(number for number in range(len(experts)) if number not in experts)
            raise AdapterError(f"{where}: {module} has no weights for expert {missing}.")
        if len({(weight.a.shape, weight.b.shape) for weight in ordered}) > 1:
            raise AdapterError(f"{where}: the experts of {module} have different shapes.")
        a = np.stack([weight.a for weight in ordered])
        made.append(LoraWeight(module, a, np.stack([weight.b for weight in ordered])))
    return made


def read_fused(
    pairs: list[Pair], scales: Scales, config: Mapping[str, Any], where: str
) -> list[LoraWeight]:
    """The experts' gate, up and down projections, at the default scale."""
    wrapped = {pair.module for pair in pairs}
    made = []
    for pair in pairs:
        match = _FUSED.fullmatch(pair.module)
        assert match is not None  # the caller chose them by is_fused
        inner = f"{match[1]}.base_layer" in wrapped
        parameter = _parameter(match, inner, config, where)
        path = f"{match[1]}.{parameter}"
        name = f"{match[2]}.switch_mlp.{parameter}"
        weight = with_scale(_unfold(name, pair, scales.rank_of(path), where), scales.factor(path))
        made += split_gate_up(weight) if parameter == "gate_up_proj" else [weight]
    return made


def _parameter(match: re.Match[str], inner: bool, config: Mapping[str, Any], where: str) -> str:
    if inner:
        return "gate_up_proj" if match[3] else "down_proj"
    targets = config.get("target_parameters")
    names = [str(name).rpartition(".")[2] for name in targets] if isinstance(targets, list) else []
    found = [name for name in ("gate_up_proj", "down_proj") if name in names]
    if len(found) != 1:
        raise AdapterError(
            f"{where}: {match[1]} adapts gate_up_proj or down_proj, and target_parameters in "
            "its config doesn't say which."
        )
    return found[0]


def _unfold(module: str, pair: Pair, rank: int, where: str) -> LoraWeight:
    """PEFT's two 2-D tensors as (experts, rank, inputs) and (experts, outputs, rank)."""
    a, b = pair.a, pair.b
    experts, rest = divmod(a.shape[0], rank) if a.ndim == 2 else (0, 0)
    if b.ndim != 2 or rest or experts == 0 or b.shape[1] != a.shape[0]:
        raise AdapterError(
            f"{where}: {pair.module} has shapes A {a.shape} and B {b.shape}, "
            f"but the config says rank {rank}."
        )
    weight = LoraWeight(
        module,
        a.reshape(experts, rank, a.shape[1]),
        b.reshape(b.shape[0], rank, experts).transpose(2, 0, 1),
    )
    check_weight(weight, rank, where)
    return weight
