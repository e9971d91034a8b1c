"""The form that PEFT trains and vLLM loads: ``adapter_model.safetensors`` with its config.

A dense module has ``lora_A`` (rank, inputs) and ``lora_B`` (outputs, rank). Experts are read in
both layouts there are: one module for each expert, and PEFT's ``target_parameters`` on the fused
parameters of transformers 5 (``adapters.forms.peft_experts``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.forms.folder import CONFIG_FILE, file_in, read_config
from adapters.forms.halves import Half, Named, Pair, check_weight, make_lora, pair_up, with_scale
from adapters.forms.peft_config import Scales, read_scales
from adapters.forms.peft_experts import is_fused, is_separate, read_fused, read_separate
from adapters.forms.tensors import read_safetensors
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


WEIGHTS_FILE = "adapter_model.safetensors"

_NAME = re.compile(
    r"base_model\.model\.((?:model\.|model\.language_model\.|language_model\.model\.)?"
    r"layers\.(?:0|[1-9][0-9]{0,3})(?:\.[a-z][a-z0-9_]*|\.experts\.[0-9]{1,5})+)"
    r"\.lora_([AB])(?:\.default)?\.weight"
)


def read_peft(folder: Path) -> Lora:
    """The adapter in ``folder``. Raises AdapterError unless it is a whole, plain LoRA.

    Ranks and alphas that differ between modules are brought to one: the largest rank, with zeros
    for the rest, and the config's own scale, with the difference in ``b`` (as float32).
    """
    config = read_config(folder)
    scales = read_scales(config, folder / CONFIG_FILE)
    tensors = read_safetensors(file_in(folder, WEIGHTS_FILE))
    where = str(folder)
    weights: dict[str, LoraWeight] = {}
    for weight in _weights(pair_up(_named(tensors, where), where), scales, config, where):
        if weight.module in weights:
            raise AdapterError(f"{where}: {weight.module} comes in two layouts.")
        weights[weight.module] = weight
    rank = max(weight.rank for weight in weights.values())
    alpha = scales.alpha if rank == scales.rank and not scales.rslora else None
    base = str(config.get("base_model_name_or_path") or "")
    return make_lora(folder.name, base, scales.default, alpha, weights)


def _weights(
    pairs: list[Pair], scales: Scales, config: dict[str, Any], where: str
) -> list[LoraWeight]:
    """The modules' updates, all at the default scale."""
    separate = [pair for pair in pairs if is_separate(pair.module)]
    fused = [pair for pair in pairs if is_fused(pair.module)]
    weights = []
    for pair in pairs:
        if is_separate(pair.module) or is_fused(pair.module):
            continue
        weight = LoraWeight(_below_model(pair.module), pair.a, pair.b)
        weights.append(_at_default(weight, pair.module, scales, where))
    weights += read_fused(fused, scales, config, where)
    by_expert = [
        _at_default(LoraWeight(pair.module, pair.a, pair.b), pair.module, scales, where)
        for pair in separate
    ]
    return weights + read_separate(by_expert, where)


def _at_default(weight: LoraWeight, path: str, scales: Scales, where: str) -> LoraWeight:
    check_weight(weight, scales.rank_of(path), where)
    if weight.experts is not None:
        raise AdapterError(f"{where}: {path} has shapes A {weight.a.shape}; two axes are read.")
    return with_scale(weight, scales.factor(path))


def _below_model(path: str) -> str:
    return path[path.index("layers.") :]


def _named(tensors: dict[str, NDArray[np.floating[Any]]], where: str) -> list[Named]:
    found = []
    for name, array in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise AdapterError(f"{where}: unknown weight {name!r}.")
        half: Half = "A" if match[2] == "A" else "B"
        found.append(Named(name, match[1], half, array))
    return found
