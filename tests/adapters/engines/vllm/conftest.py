from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from adapters.engines.vllm import VllmConfig, VllmEngine
from tests.adapters.engines.vllm.folders import small_adapter
from tests.adapters.engines.vllm.scripted import ScriptedVllm

NAMES = ("shell", "python", "sql", "cpp", "spice")


@pytest.fixture
def adapters(tmp_path: Path):
    """Five small adapters of rank 4, 1 kB or so each."""
    return [small_adapter(tmp_path / "adapters" / name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture
async def servers() -> AsyncIterator[list[ScriptedVllm]]:
    """Three servers that run; a test takes those it needs."""
    running = [ScriptedVllm() for _ in range(3)]
    for server in running:
        await server.start()
    yield running
    for server in running:
        await server.die()


StartEngine = Callable[..., Awaitable[VllmEngine]]


@pytest.fixture
async def start_engine(tmp_path, adapters) -> AsyncIterator[StartEngine]:
    """Starts an engine on the given servers with all adapters; it is stopped after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*servers: ScriptedVllm, **changes) -> VllmEngine:
            config = VllmConfig(
                **{
                    "model": "base-model",
                    "urls": tuple(server.url for server in servers),
                    "work_dir": tmp_path / "work",
                    "probe_interval": 0.2,
                    "load_timeout": 5.0,
                    "cpu": False,  # whatever runs the tests
                }
                | changes
            )
            engine = VllmEngine(config, tmp_path / "converted")
            stack.push_async_callback(engine.stop)
            assert await engine.set_adapters(adapters) == ()
            await engine.start()
            return engine

        yield start
