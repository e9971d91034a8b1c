"""The base model: loaded once, with slots in its modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx.nn.layers.base import Module
from mlx_lm.generate import StopSequences
from mlx_lm.models.cache import make_prompt_cache

from adapters.engines.mlx.cache import KvCache
from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.probe import check_model, fingerprint, read_probe
from adapters.engines.mlx.slots import Slots
from kiki.errors import AssetError, EngineUnavailableError


@dataclass(frozen=True, slots=True)
class Base:
    """The model with its slots. ``ends`` are the tokens that end a turn."""

    model: Module
    slots: Slots
    tokenizer: Any
    ends: StopSequences
    config: MlxConfig

    def new_cache(self) -> KvCache:
        """An empty state for one row; quantised where the configuration says so."""
        cache = make_prompt_cache(self.model)
        bits, group = self.config.kv_bits, self.config.kv_group_size
        if bits is None:
            return cache
        return [
            layer.to_quantized(group_size=group, bits=bits)
            if hasattr(layer, "to_quantized")
            else layer
            for layer in cache
        ]

    def single(self) -> bool:
        """Whether this model's state has no batched form, so that rows run one by one."""
        return not all(hasattr(layer, "merge") for layer in self.new_cache())


def load_base(model: Path | str, config: MlxConfig) -> Base:
    """Load and patch the model. Raises EngineUnavailableError."""
    fix = "Give a folder with config.json, safetensors and a tokenizer, or a name on the hub."
    if isinstance(model, Path) and not model.is_dir():
        raise EngineUnavailableError(f"{model}: there is no such folder of a model.", fix=fix)
    try:
        network, tokenizer = mlx_lm.load(str(model))[:2]
    except Exception as error:  # whatever a broken folder makes of mlx_lm and transformers
        raise EngineUnavailableError(f"MLX can't load {model}: {error}", fix=fix) from error
    if not tokenizer.has_chat_template:
        raise EngineUnavailableError(
            f"{model} has no chat template.", fix="Use a model that was trained for chat."
        )
    ends = StopSequences([[token] for token in tokenizer.eos_token_ids])
    dtype = getattr(mx, config.adapter_dtype) if config.adapter_dtype else None
    slots = Slots.patch(network, dtype)
    if config.probe is not None:
        _mark(slots, config.probe, str(model), fingerprint(network))
    return Base(network, slots, tokenizer, ends, config)


def _mark(slots: Slots, path: Path, model: str, found: str) -> None:
    try:
        probe = read_probe(path)
        check_model(probe, path, model, found)
    except AssetError as error:
        raise EngineUnavailableError(error.message, fix=error.fix) from error
    slots.mark(probe.marks)
