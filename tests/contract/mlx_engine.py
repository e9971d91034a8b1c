"""MLX with the shipped adapters."""

from __future__ import annotations

import os

# Else each fused kernel is compiled by a C++ compiler first: 40 s on a CPU.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

from adapters.engines.mlx import MlxConfig, MlxEngine
from gateway.bench import fast_blas
from tests.contract.conftest import Bases
from tests.contract.shipped import shipped


async def start(bases: Bases) -> MlxEngine:
    fast_blas.load()
    engine = MlxEngine(bases.hf, MlxConfig(slots=4, context_tokens=1024))
    await engine.set_adapters(shipped())
    await engine.start()
    return engine
