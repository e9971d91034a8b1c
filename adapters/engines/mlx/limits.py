"""How much memory MLX may take, from the configuration or from the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapters.engines.mlx.config import GIB, MlxConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes; None leaves MLX's own default.

    ``memory``: what MLX may allocate before it waits for running work. ``cache``: freed buffers
    kept for reuse. ``wired``: what the system must not page out.
    """

    memory: int | None = None
    cache: int | None = None
    wired: int | None = None


def machine_limits(memory_size: int, working_set: int | None) -> Limits:
    """The limits for a Mac with ``memory_size`` bytes, of which the GPU may use ``working_set``.

    Memory: nine tenths, in whole GiB. Cache: one sixteenth. On a Mac with 512 GiB: 460 and 32.
    Wired: all that MLX may take, as far as the system recommends it.
    """
    memory = memory_size * 9 // 10 // GIB * GIB
    return Limits(memory, memory_size // 16, min(memory, working_set or memory))


def choose_limits(config: MlxConfig, device: dict[str, Any], *, metal: bool) -> Limits:
    """The configured limits, the machine's where the configuration has none.

    ``device`` is ``mx.device_info()``. Without Metal only what is configured is set: MLX's own
    defaults suit a machine whose memory other programs need.
    """
    own = Limits()
    if metal:
        own = machine_limits(device["memory_size"], device.get("max_recommended_working_set_size"))
    memory = config.memory_limit_bytes or own.memory
    wired = min(own.wired, memory) if own.wired and memory else None
    return Limits(memory, config.cache_limit_bytes or own.cache, wired)


def apply_limits(config: MlxConfig) -> Limits:
    """Set the limits, which are the process's; returns them. Needs mlx."""
    import mlx.core as mx

    limits = choose_limits(config, mx.device_info(), metal=mx.metal.is_available())
    if limits.memory is not None:
        mx.set_memory_limit(limits.memory)
    if limits.cache is not None:
        mx.set_cache_limit(limits.cache)
    if limits.wired is not None:
        mx.set_wired_limit(limits.wired)
    return limits
