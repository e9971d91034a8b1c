"""llama.cpp as exact as it can be: F32 weights, KV cache and adapters, no flash attention."""

from __future__ import annotations

import os
import signal

from adapters.engines.base import Engine
from adapters.engines.llamacpp import EXACT, LlamaCppEngine
from tests.contract.conftest import Bases
from tests.contract.shipped import shipped
from tests.waiting import until

# llama.cpp's server sums the vocabulary's chances in single precision, one after the other: all
# log-probabilities of a place are off by the same 1e-4. Measured: 1.5e-4; the odds: 3e-5.
REFERENCE_TOLERANCE = 2e-4
# A row in a batch, or on a cached prefix, against the row alone: sums in other orders. Measured:
# 1.2e-5.
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
