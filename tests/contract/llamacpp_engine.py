"""llama.cpp with the shipped adapters."""

from __future__ import annotations

from adapters.catalog import Catalog
from adapters.engines.llamacpp import LlamaCppEngine
from tests.contract.conftest import Bases


async def start(bases: Bases) -> LlamaCppEngine:
    adapters = Catalog(None, bases.models_dir).ready(bases.gguf)
    engine = LlamaCppEngine(bases.f32_gguf, adapters, slots=4, context_tokens=1024)
    await engine.start()
    return engine
