"""llama.cpp as exact as it can be: F32 weights, KV cache and adapters, no flash attention."""

from __future__ import annotations

import os
import signal

from adapters.engines.base import Engine
from adapters.engines.llamacpp import EXACT, LlamaCppEngine
from tests.contract.conftest import Bases
from tests.contract.shipped import shipped
from tests.waiting import until

# Largest difference of a log-probability from torch's; and of a row in a batch, or with a reused
# prefix, from the same row alone: llama.cpp sums batches of other shapes in other orders.
REFERENCE_TOLERANCE = 1e-4
BATCH_TOLERANCE = 1e-4


async def start(bases: Bases) -> LlamaCppEngine:
    cache = bases.models_dir / "adapters"
    engine = LlamaCppEngine(
        bases.f32_gguf, cache_dir=cache, slots=4, context_tokens=1024, precision=EXACT
    )
    assert await engine.set_adapters(shipped()) == ()
    await engine.start()
    return engine


async def crash(engine: Engine) -> None:
    """Kill the server's process and wait until that is seen."""
    assert isinstance(engine, LlamaCppEngine)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.state != "ready")
