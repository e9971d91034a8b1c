"""Small PEFT adapters on disk, and what they do to a dense model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from adapters.adapter import Adapter

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]


def write_adapter(folder: Path, halves: Arrays, rank: int, alpha: float, **config) -> Adapter:
    """``halves`` maps a module's whole name (``model.layers.0...``) to its A and B."""
    folder.mkdir(parents=True)
    tensors = {}
    for module, (a, b) in halves.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
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
    config_text = (folder / "adapter_config.json").read_bytes()
    config = json.loads(config_text)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    return Adapter(
        name=folder.name,
        path=folder,
        form="peft",
        rank=config["r"],
        alpha=config["lora_alpha"],
        bytes=len(weights),
        base=str(config.get("base_model_name_or_path", "")),
        fingerprint=hashlib.sha256(weights + config_text).hexdigest(),
    )
