"""The memory that MLX may take: from the configuration, else from the machine."""

from __future__ import annotations

import mlx.core as mx
import pytest

from adapters.engines.mlx import MlxConfig
from adapters.engines.mlx.config import GIB
from adapters.engines.mlx.limits import Limits, apply_limits, choose_limits, machine_limits

MAC = {"memory_size": 512 * GIB, "max_recommended_working_set_size": 464 * GIB}


def test_a_mac_with_512_gib_gives_460_and_keeps_32_for_reuse():
    limits = choose_limits(MlxConfig(), MAC, metal=True)
    assert limits == Limits(memory=460 * GIB, cache=32 * GIB, wired=460 * GIB)


@pytest.mark.parametrize(("machine", "memory"), [(8, 7), (16, 14), (64, 57), (192, 172)])
def test_other_macs_give_nine_tenths_in_whole_gib_and_a_sixteenth(machine, memory):
    limits = machine_limits(machine * GIB, None)
    assert (limits.memory, limits.cache) == (memory * GIB, machine * GIB // 16)


def test_no_more_is_wired_than_the_system_recommends_or_mlx_may_take():
    assert machine_limits(64 * GIB, 48 * GIB).wired == 48 * GIB
    config = MlxConfig(memory_limit_bytes=20 * GIB, cache_limit_bytes=GIB)
    assert choose_limits(config, MAC, metal=True) == Limits(20 * GIB, GIB, 20 * GIB)


def test_without_metal_only_what_is_configured_is_set():
    assert choose_limits(MlxConfig(), {}, metal=False) == Limits()
    config = MlxConfig(memory_limit_bytes=GIB)
    assert choose_limits(config, {}, metal=False) == Limits(memory=GIB)


def test_what_is_configured_holds_in_mlx():
    memory, cache = mx.set_memory_limit(GIB), mx.set_cache_limit(GIB)
    try:
        apply_limits(MlxConfig(memory_limit_bytes=3 * GIB, cache_limit_bytes=2 * GIB))
        assert mx.set_memory_limit(memory) == 3 * GIB
        assert mx.set_cache_limit(cache) == 2 * GIB
    finally:
        mx.set_memory_limit(memory)
        mx.set_cache_limit(cache)
