"""PEFT adapters to GGUF, in one call; ``adapters.forms`` reads and writes every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.forms.base import read_base_shape
from adapters.forms.folder import CONFIG_FILE, read_config
from adapters.forms.peft import read_peft
from adapters.forms.peft_config import read_scales
from adapters.forms.tensors import read_safetensors
from adapters.forms.writing import write_lora

__all__ = ["convert_peft_to_gguf", "read_peft_config", "read_safetensors"]


def convert_peft_to_gguf(adapter_dir: Path, base_gguf: Path, out: Path) -> None:
    """Write the PEFT adapter in ``adapter_dir`` as a GGUF LoRA for ``base_gguf`` to ``out``.

    The file appears whole or not at all; one that is there is replaced. Raises AdapterError when
    the adapter's files are missing or damaged, when a weight has no place in the base, or when a
    shape doesn't fit.
    """
    lora = read_peft(adapter_dir)
    write_lora(lora, "gguf", out, base=read_base_shape(base_gguf), force=True)


def read_peft_config(adapter_dir: Path) -> dict[str, Any]:
    """The adapter's ``adapter_config.json``. Raises AdapterError unless it is a plain LoRA's."""
    config = read_config(adapter_dir)
    read_scales(config, adapter_dir / CONFIG_FILE)
    return config
