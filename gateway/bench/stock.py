"""What changing the adapter costs with mlx_lm alone: the two ways there are."""

# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.

from __future__ import annotations

import gc
from pathlib import Path

import mlx.core as mx
import mlx_lm
from mlx.nn.layers.base import Module
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRASwitchLinear
from mlx_lm.tuner.utils import load_adapters, remove_lora_layers


class Stock:
    """A model folder loaded with mlx_lm's own LoRA layers."""

    def __init__(self, folder: Path, adapter: Path) -> None:
        self._folder = folder
        self._model: Module | None = None
        self.reload(adapter)

    def reload(self, adapter: Path) -> None:
        """Drop the model and load it again, as ``mlx_lm.server`` does for another ``adapters``."""
        self._model = None
        gc.collect()
        mx.clear_cache()
        self._model = mlx_lm.load(str(self._folder), adapter_path=str(adapter))[0]
        mx.eval(self._model.parameters())

    def unpatch_and_load(self, adapter: Path) -> None:
        """Take the LoRA layers out of the loaded model and load the other adapter into it.

        mlx_lm 0.32's ``remove_lora_layers`` leaves the layers over experts in place: the model
        keeps the old adapter there, and the next ``load_adapters`` raises on them. Whoever wants
        to go this way has to put those modules back by hand, and so does this.
        """
        assert self._model is not None
        remove_lora_layers(self._model)
        left = [
            (name, module.linear)
            for name, module in self._model.named_modules()
            if isinstance(module, LoRASwitchLinear)
        ]
        if left:
            self._model.update_modules(tree_unflatten(left))
        load_adapters(self._model, str(adapter))
        self._model.eval()
        mx.eval(self._model.parameters())
