"""How much of a mix the device's slots and the RAM disk hold."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.config import LORA_RANKS, VllmConfig
from adapters.mix import Mix

RAM_DISK = Path("/dev/shm")
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Size:
    """What an adapter takes: its rank in a slot, its bytes in ``work_dir``."""

    rank: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """``rank`` is a slot's, ``store_bytes`` what all composed adapters may take together.

    The ranks of a mix add up. An adapter of experts that trained gate and up apart takes twice
    its rank, as vLLM's fused layout has one A for both: of such adapters with rank 16, a slot of
    rank 64 holds two, and four need 128.
    """

    rank: int
    store_bytes: int

    def holds(self, sizes: list[Size]) -> bool:
        """Whether one composed adapter of these parts fits."""
        rank, size = sum(s.rank for s in sizes), sum(s.bytes for s in sizes)
        return rank <= self.rank and size <= self.store_bytes

    def fitting(self, mix: Mix, sizes: Mapping[str, Size]) -> Mix:
        """The mix without what doesn't fit: the strongest first, by the size of their weight.

        One that is too big for what the stronger ones leave doesn't shut out a smaller one.
        """
        chosen: list[tuple[str, float]] = []
        for name, weight in sorted(mix.weights, key=lambda pair: (-abs(pair[1]), pair[0])):
            if self.holds([sizes[other] for other, _ in chosen] + [sizes[name]]):
                chosen.append((name, weight))
        return mix if len(chosen) == len(mix.weights) else Mix.of(chosen)


def measure(config: VllmConfig, base: BaseModel) -> Capacity:
    """What there is at the start; the ranks only of a server that we start ourselves."""
    store = available_bytes(config.work_dir)
    if config.store_bytes is not None:
        store = min(store, config.store_bytes)
    return Capacity(slot_rank(config, base), store)


def slot_rank(config: VllmConfig, base: BaseModel) -> int:
    """The largest rank up to ``max_lora_rank`` with which all slots fit into ``lora_bytes``."""
    if config.lora_bytes is None or config.urls:
        return config.max_lora_rank
    for rank in sorted(LORA_RANKS, reverse=True):
        needed = base.slot_bytes(config.max_loras, rank)
        if rank <= config.max_lora_rank and needed is not None and needed <= config.lora_bytes:
            return rank
    return config.max_lora_rank if base.modules is None else LORA_RANKS[0]


def available_bytes(work_dir: Path) -> int:
    """Bytes that composed adapters may take in ``work_dir``.

    Nine tenths of what is free; on a RAM disk at most half of the free memory, since vLLM keeps
    a copy of each adapter it has loaded.
    """
    free = shutil.disk_usage(work_dir).free * 9 // 10
    if RAM_DISK.is_dir() and work_dir.stat().st_dev == RAM_DISK.stat().st_dev:
        free = min(free, _free_memory() // 2)
    return free


def _free_memory() -> int:
    for line in _MEMORY.read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_MEMORY} has no MemAvailable line")
