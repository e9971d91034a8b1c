"""Does a GGUF adapter, used as it comes, fit the base model? Else llama.cpp would not start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.forms.base import read_base_header
from adapters.forms.gguf_file import read_gguf_file
from kiki.errors import AdapterError

Shape = tuple[int, ...]

EMBEDDING = "token_embd.weight"  # its halves lie transposed


@dataclass(frozen=True, slots=True)
class BaseTensors:
    """Any GGUF model: its architecture, and its tensors' shapes with the outputs first."""

    architecture: str
    shapes: Mapping[str, Shape]


def read_base_tensors(base_gguf: Path) -> BaseTensors:
    """Raises AdapterError when the base can't be read."""
    metadata, tensors = read_base_header(base_gguf)
    architecture = str(metadata.get("general.architecture", "unknown"))
    return BaseTensors(architecture, {tensor.name: tensor.shape for tensor in tensors})


def check_gguf_fits(adapter: Path, base: BaseTensors) -> None:
    """Raise AdapterError, with the tensor's name, unless llama.cpp can load ``adapter``."""
    import numpy as np

    file = read_gguf_file(adapter)
    for key, expected in (("general.type", "adapter"), ("adapter.type", "lora")):
        if file.metadata.get(key) != expected:
            raise AdapterError(f"{adapter} isn't a LoRA: its {key} isn't {expected!r}.")
    architecture = file.metadata.get("general.architecture")
    if architecture != base.architecture:
        raise AdapterError(
            f"{adapter} is for {architecture}; the base model is {base.architecture}.",
            fix="It was trained for another base model.",
        )
    if not file.tensors:
        raise AdapterError(f"{adapter} holds no weights.")
    for name, weight in file.tensors.items():
        target, _, half = name.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            raise AdapterError(f"{adapter}: unknown weight {name!r}.")
        if not np.isfinite(weight).all():
            raise AdapterError(f"{adapter}: {name} isn't finite.")
        partner = file.tensors.get(f"{target}.{'lora_b' if half == 'lora_a' else 'lora_a'}")
        if partner is None:
            raise AdapterError(f"{adapter}: {target} has only one of lora_a and lora_b.")
        if half == "lora_a":
            _check_pair(adapter, target, weight.shape, partner.shape, base)


def _check_pair(adapter: Path, target: str, a: Shape, b: Shape, base: BaseTensors) -> None:
    if target not in base.shapes:
        raise AdapterError(
            f"{adapter} adapts {target}, which the base doesn't have.",
            fix="It was trained for another base model.",
        )
    if min(len(a), len(b)) < 2:
        raise AdapterError(f"{adapter}: {target} has shapes A {a} and B {b}.")
    if target == EMBEDDING:
        a = (*a[:-2], a[-1], a[-2])
    adapted = (*b[:-2], a[-1], b[-2]) if target == EMBEDDING else (*b[:-1], a[-1])
    if a[-2] != b[-1] or a[:-2] != b[:-2] or adapted != base.shapes[target]:
        raise AdapterError(
            f"{adapter}: {target} has shapes A {a} and B {b}; the base's is {base.shapes[target]}.",
            fix="It was trained for another base model.",
        )
