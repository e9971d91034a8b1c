"""The form that mlx_lm trains and loads: ``adapters.safetensors`` with ``adapter_config.json``.

A dense module has ``lora_a`` (inputs, rank) and ``lora_b`` (rank, outputs); a mixture of experts
has (experts, rank, inputs) and (experts, outputs, rank). ``scale`` in the config is alpha / rank.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.forms.folder import (
    CONFIG_FILE,
    file_in,
    positive,
    rank_of,
    read_config,
    write_config,
)
from adapters.forms.halves import Half, Named, check_weight, make_lora, pair_up
from adapters.forms.tensors import read_safetensors, write_safetensors
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS_FILE = "adapters.safetensors"

_NAME = re.compile(
    r"(?:(?:language_model\.)?model\.)?"
    r"(layers\.(?:0|[1-9][0-9]{0,3})(?:\.[a-z][a-z0-9_]*)+)\.lora_([ab])"
)


def read_mlx(folder: Path) -> Lora:
    """The adapter in ``folder``. Raises AdapterError unless it is a whole, plain LoRA."""
    config = read_config(folder)
    rank, scale = _read_scale(config, folder)
    tensors = read_safetensors(file_in(folder, WEIGHTS_FILE))
    where = str(folder)
    weights = {}
    for pair in pair_up(_named(tensors, where), where):
        dense = pair.a.ndim == 2
        weight = (
            LoraWeight(pair.module, pair.a.T, pair.b.T)
            if dense
            else LoraWeight(pair.module, pair.a, pair.b)
        )
        check_weight(weight, rank, where)
        weights[pair.module] = weight
    return make_lora(folder.name, str(config.get("model") or ""), scale, None, weights)


def _read_scale(config: dict[str, Any], folder: Path) -> tuple[int, float]:
    path = folder / CONFIG_FILE
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise AdapterError(f"{path}: fine_tune_type {kind!r} isn't read; lora is.")
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise AdapterError(f"{path}: lora_parameters is missing.", fix="mlx_lm writes it.")
    rank = rank_of(parameters.get("rank"), f"{path}: lora_parameters.rank")
    return rank, positive(parameters.get("scale"), f"{path}: lora_parameters.scale")


def _named(tensors: dict[str, NDArray[np.floating[Any]]], where: str) -> list[Named]:
    found = []
    for name, array in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise AdapterError(f"{where}: unknown weight {name!r}.")
        half: Half = "A" if match[2] == "a" else "B"
        found.append(Named(name, match[1], half, array))
    return found


def write_mlx(lora: Lora, folder: Path, *, nested: bool, layers: int | None = None) -> None:
    """Write ``lora``, all of one rank, into ``folder`` as mlx_lm's trainer does.

    ``nested`` is for a base whose language model is a part of it. ``layers`` is how many the base
    has; mlx_lm adapts the last ``num_layers`` of them, -1 for all. Where ``layers`` isn't known,
    the highest adapted one counts as the base's last, as in all that mlx_lm trains.
    """
    prefix = "language_model.model." if nested else "model."
    tensors = {}
    for name, weight in lora.weights.items():
        dense = weight.experts is None
        tensors[f"{prefix}{name}.lora_a"] = weight.a.T if dense else weight.a
        tensors[f"{prefix}{name}.lora_b"] = weight.b.T if dense else weight.b
    write_safetensors(tensors, folder / WEIGHTS_FILE, {"format": "mlx"})
    adapted = {weight.layer for weight in lora.weights.values()}
    last = layers or max(adapted) + 1
    config: dict[str, Any] = {
        "fine_tune_type": "lora",
        "num_layers": last - min(adapted) if min(adapted) else -1,
        "lora_parameters": {
            "rank": lora.rank,
            "scale": lora.scale,
            "dropout": 0.0,
            "keys": sorted({weight.kind for weight in lora.weights.values()}),
        },
    }
    if lora.base:
        config["model"] = lora.base
    write_config(config, folder)
