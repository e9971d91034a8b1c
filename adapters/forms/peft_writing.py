"""Writing PEFT's form as vLLM 0.32 and PEFT 0.21 both load it.

Experts of Qwen3.5 and 3.6 are written fused: vLLM's ``Qwen3_5MoeForConditionalGeneration`` is an
``is_3d_moe_weight`` model, whose loader takes ``mlp.experts.base_layer`` for gate_up_proj and
``mlp.experts`` for down_proj, both present, reshaped by the number of experts; these are the names
and shapes of PEFT's ``target_parameters``. Gate and up have each an ``a`` of their own, so the
fused one has the sum of their ranks: rank_pattern and alpha_pattern say so, which both read
(vLLM's ``--max-lora-rank`` must then be twice the adapter's rank).
Other models (Qwen3-MoE) get a module for each expert: vLLM loads those so, and PEFT fuses them
itself. Layers of Qwen3.5 and 3.6 are below ``model.language_model``, which vLLM maps to its own
names; below ``model`` it would pass them over without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.forms.experts import fused_layer
from adapters.forms.folder import write_config
from adapters.forms.gguf_names import DOWN
from adapters.forms.peft import WEIGHTS_FILE
from adapters.forms.tensors import write_safetensors
from adapters.lora import Lora, LoraWeight

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUTER = "mlp.gate"


def write_peft(lora: Lora, folder: Path, *, nested: bool) -> None:
    """Write ``lora``, all of one rank, into ``folder``; ``nested`` is for Qwen3.5 and 3.6."""
    prefix = "base_model.model.model.language_model." if nested else "base_model.model.model."
    tensors: dict[str, NDArray[Any]] = {}
    for name, weight in lora.weights.items():
        if weight.experts is None:
            _add(tensors, prefix + name, weight)
        elif not nested:
            _add_separate(tensors, prefix, weight)
    ranks: dict[str, int] = {}
    if nested:
        layers = sorted({weight.layer for weight in lora.weights.values()})
        ranks = _shortened([_add_fused(tensors, prefix, lora, layer) for layer in layers])
    write_safetensors(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
    write_config(_config(lora, nested=nested, ranks=ranks), folder)


def _add(tensors: dict[str, NDArray[Any]], path: str, weight: LoraWeight) -> None:
    tensors[f"{path}.lora_A.weight"] = weight.a
    tensors[f"{path}.lora_B.weight"] = weight.b


def _add_separate(tensors: dict[str, NDArray[Any]], prefix: str, weight: LoraWeight) -> None:
    before, projection = weight.module.split(".switch_mlp.")
    for expert in range(weight.a.shape[0]):
        one = LoraWeight(weight.module, weight.a[expert], weight.b[expert])
        _add(tensors, f"{prefix}{before}.experts.{expert}.{projection}", one)


def _add_fused(
    tensors: dict[str, NDArray[Any]], prefix: str, lora: Lora, layer: int
) -> dict[str, int]:
    """Add the experts of ``layer``; the ranks that differ from the adapter's are given back."""
    import numpy as np

    gate_up = fused_layer(lora.weights, layer)
    down = lora.weights.get(f"layers.{layer}.{DOWN}")
    if gate_up is None and down is None:
        return {}
    # vLLM refuses the one without the other; an update of zero adds nothing.
    if down is None:
        assert gate_up is not None
        experts, outputs, inputs = (gate_up.a.shape[0], gate_up.b.shape[1], gate_up.a.shape[2])
        a = np.zeros((experts, lora.rank, outputs // 2), gate_up.a.dtype)
        b = np.zeros((experts, inputs, lora.rank), gate_up.b.dtype)
        down = LoraWeight(f"layers.{layer}.{DOWN}", a, b)
    if gate_up is None:
        experts, outputs, inputs = down.a.shape[0], down.b.shape[1], down.a.shape[2]
        a = np.zeros((experts, lora.rank, outputs), down.a.dtype)
        b = np.zeros((experts, 2 * inputs, lora.rank), down.b.dtype)
        gate_up = LoraWeight(f"layers.{layer}.mlp.switch_mlp.gate_up_proj", a, b)
    path = f"{prefix}layers.{layer}.mlp.experts"
    _add(tensors, f"{path}.base_layer", _folded(gate_up))
    _add(tensors, path, _folded(down))
    if gate_up.rank == lora.rank:
        return {}
    return {f"layers.{layer}.mlp.experts.gate_up_proj": gate_up.rank}


def _shortened(ranks: list[dict[str, int]]) -> dict[str, int]:
    """One rule for all layers where it is the same for each."""
    if ranks and all(ranks) and len({rank for rule in ranks for rank in rule.values()}) == 1:
        return {"mlp.experts.gate_up_proj": next(iter(ranks[0].values()))}
    return {name: rank for rule in ranks for name, rank in rule.items()}


def _folded(weight: LoraWeight) -> LoraWeight:
    """(experts, rank, inputs) and (experts, outputs, rank) as PEFT's two 2-D tensors."""
    a = weight.a.reshape(-1, weight.a.shape[2])
    b = weight.b.transpose(1, 2, 0).reshape(weight.b.shape[1], -1)
    return LoraWeight(weight.module, a, b)


def _config(lora: Lora, *, nested: bool, ranks: dict[str, int]) -> dict[str, Any]:
    modules, parameters = _targets(lora, nested=nested)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lora.base or None,
        "r": lora.rank,
        "lora_alpha": _plain(lora.alpha),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "target_modules": modules,
        "target_parameters": parameters or None,
        "rank_pattern": ranks,
        "alpha_pattern": {name: _plain(lora.scale * rank) for name, rank in ranks.items()},
        "inference_mode": True,
    }


def _plain(number: float) -> float:
    """16, not 16.0, as PEFT writes it."""
    return int(number) if float(number).is_integer() else number


def _targets(lora: Lora, *, nested: bool) -> tuple[list[str], list[str]]:
    """target_modules and target_parameters: kinds, or whole names where only some layers have them.

    PEFT adds what it targets and doesn't find in the file as untrained, and warns of it.
    """
    layers = {weight.layer for weight in lora.weights.values()}
    from_the_first = layers == set(range(len(layers)))
    modules, parameters = set(), set()
    moe = any(weight.experts is not None for weight in lora.weights.values())
    for weight in lora.weights.values():
        name = weight.kind if from_the_first else weight.module
        stem = name.removesuffix(weight.kind)
        if weight.experts is not None and nested:
            parameters |= {
                f"{stem}mlp.experts.gate_up_proj",
                f"{stem}mlp.experts.down_proj",
            }
        elif weight.experts is not None:
            modules.add(weight.kind.rpartition(".")[2])
        elif weight.kind == _ROUTER and (moe or nested):
            # The router of transformers 5 holds a bare parameter; it is no linear module.
            parameters.add(f"{name}.weight")
        else:
            modules.add(name)
    return sorted(modules), sorted(parameters)
