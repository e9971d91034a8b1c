"""Small PEFT adapters on disk, and what they do to a dense model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from adapters.adapter import Adapter
from adapters.engines.vllm.sources import Source
from adapters.folders import fingerprint
from adapters.forms.tensors import read_safetensors

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]


def write_adapter(folder: Path, halves: Arrays, rank: int, alpha: float, **config) -> Adapter:
    """``halves`` maps a module's whole name (``model.layers.0...``) to its A and B."""
    folder.mkdir(parents=True)
    tensors = {}
    for module, (a, b) in halves.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b)
    weights = folder / "adapter_model.safetensors"
    save_file(tensors, weights, {"format": "pt"})
    os.utime(weights, (1, 1))  # whatever changes it, its time is another one then
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return adapter_at(folder)


def small_adapter(folder: Path, seed: int, *, rank: int = 4, layers: int = 2) -> Adapter:
    """Two layers of a dense q and a down projection, in f32."""
    random = np.random.default_rng(seed)
    halves = {}
    for layer in range(layers):
        for kind, outputs, inputs in (("self_attn.q_proj", 6, 8), ("mlp.down_proj", 8, 10)):
            a = random.normal(size=(rank, inputs)).astype(np.float32)
            b = random.normal(size=(outputs, rank)).astype(np.float32)
            halves[f"model.layers.{layer}.{kind}"] = (a, b)
    return write_adapter(folder, halves, rank, 2.0 * rank)


def adapter_at(folder: Path) -> Adapter:
    """A PEFT folder as the catalog would give it."""
    config = json.loads((folder / "adapter_config.json").read_bytes())
    return Adapter(
        name=folder.name,
        path=folder,
        form="peft",
        rank=config["r"],
        alpha=config["lora_alpha"],
        bytes=(folder / "adapter_model.safetensors").stat().st_size,
        base=str(config.get("base_model_name_or_path", "")),
        fingerprint=fingerprint(folder),
    )


def numbers_of(source: Source, module: str, half: str) -> np.ndarray:
    """Half a module, as another reader sees it, with its rank in the middle; BF16 as float32."""
    for name, array in read_safetensors(source.folder / "adapter_model.safetensors").items():
        if f"{module.partition('layers.')[2]}.lora_{half}." in name:
            return array.reshape(source.halves[module, half].shape)
    raise KeyError(module, half)
