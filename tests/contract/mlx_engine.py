"""MLX with the shipped adapters."""

from __future__ import annotations

import os
from pathlib import Path

# Else each fused kernel is compiled by a C++ compiler first: 40 s on a CPU.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

from adapters.adapter import Adapter
from adapters.catalog import SHIPPED
from adapters.engines.mlx import MlxConfig, MlxEngine
from tests import fast_blas
from tests.contract.conftest import Bases


async def start(bases: Bases) -> MlxEngine:
    fast_blas.load()
    engine = MlxEngine(bases.hf, MlxConfig(slots=4, context_tokens=1024))
    await engine.set_adapters([_adapter(folder) for folder in sorted(SHIPPED.iterdir())])
    await engine.start()
    return engine


def _adapter(folder: Path) -> Adapter:
    size = (folder / "adapter_model.safetensors").stat().st_size
    return Adapter(folder.name, folder, "peft", 16, 16.0, size, "", fingerprint=str(size))
