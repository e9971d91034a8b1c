"""What vLLM has room for, told before it runs; nothing is converted, composed or started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from adapters.adapter import Adapter, Refusal
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.capacity import Capacity, Size, measure
from adapters.engines.vllm.config import VllmConfig
from adapters.engines.vllm.sources import Source
from adapters.engines.vllm.tensors import ITEM_BYTES, stored_tensors
from adapters.forms.gguf_file import NUMBER_FORMATS, read_gguf_header
from adapters.forms.gguf_names import ARCHITECTURES, GATE, UP, module_of
from adapters.forms.layout import names_nested
from adapters.forms.mlx import WEIGHTS_FILE
from adapters.mix import MAX_ADAPTERS
from kiki.errors import AdapterError

_MLX_NAME = re.compile(r"(?:.+\.)?layers\.\d+\.(.+)\.lora_([ab])")


@dataclass(frozen=True, slots=True)
class Forecast:
    """``slot_bytes`` is what the slots take on the device, None where the base doesn't tell.

    ``sizes`` are those of the adapters that can be read, by name.
    """

    capacity: Capacity
    slot_bytes: int | None
    sizes: Mapping[str, Size]
    refused: tuple[Refusal, ...]

    @property
    def highest(self) -> list[str]:
        """The adapters of the mix that takes the most of a slot."""
        return sorted(self.sizes, key=lambda name: (-self.sizes[name].rank, name))[:MAX_ADAPTERS]

    @property
    def largest(self) -> list[str]:
        """The adapters of the mix that takes the most of the work folder."""
        return sorted(self.sizes, key=lambda name: (-self.sizes[name].bytes, name))[:MAX_ADAPTERS]


def forecast(config: VllmConfig, adapters: Sequence[Adapter]) -> Forecast:
    """What the settings leave for ``adapters``. Raises OSError where the machine doesn't tell."""
    base = BaseModel.read(config.model, config.dtype)
    there = next(path for path in (config.work_dir, *config.work_dir.parents) if path.is_dir())
    capacity = measure(replace(config, work_dir=there), base)
    sizes: dict[str, Size] = {}
    refused = []
    for adapter in adapters:
        try:
            sizes[adapter.name] = expected_size(adapter, base)
        except AdapterError as error:
            refused.append(Refusal(adapter.name, adapter.path, str(error)))
    slots = base.slot_bytes(config.max_loras, capacity.rank)
    return Forecast(capacity, slots, sizes, tuple(refused))


def expected_size(adapter: Adapter, base: BaseModel) -> Size:
    """What the adapter takes once it is in PEFT's form, from its header alone.

    Raises AdapterError where it can't be read.
    """
    if adapter.form == "peft":
        source = Source.open(adapter.path.absolute(), base.prefix)
        return Size(source.rank, source.bytes_as(base.kind))
    halves = list(_mlx(adapter.path) if adapter.form == "mlx" else _gguf(adapter.path))
    kinds = {half.kind for half in halves}
    # Gate and up of an expert become one update, whose rank is that of both.
    together = {GATE, UP} & kinds if names_nested(kinds, adapter.base) else set()
    numbers = [half.count * (2 if half.kind in together and half.is_b else 1) for half in halves]
    items = [ITEM_BYTES[base.kind] if base.kind else half.item_bytes for half in halves]
    return Size(
        adapter.rank * max(1, len(together)),
        sum(count * item for count, item in zip(numbers, items, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Half:
    kind: str
    is_b: bool
    count: int
    item_bytes: int  # once it is read: BF16 becomes float32


def _mlx(folder: Path) -> Iterator[_Half]:
    for name, stored in stored_tensors(folder / WEIGHTS_FILE).items():
        match = _MLX_NAME.fullmatch(name)
        if match:
            yield _Half(match[1], match[2] == "b", stored.size, 2 if stored.kind == "F16" else 4)


def _gguf(file: Path) -> Iterator[_Half]:
    metadata, tensors = read_gguf_header(file)
    architecture = str(metadata.get("general.architecture"))
    for tensor in tensors:
        target, _, half = tensor.name.rpartition(".")
        module = module_of(target, architecture) if architecture in ARCHITECTURES else None
        kind = module.split(".", 2)[2] if module else target
        item_bytes = 2 if NUMBER_FORMATS.get(tensor.kind) == "f16" else 4
        yield _Half(kind, half == "lora_b", prod(tensor.shape), item_bytes)
