"""Every engine, started once, with the shipped adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.catalog import Catalog
from adapters.engines.base import Engine
from adapters.engines.llamacpp import LlamaCppEngine
from gateway.assets import ModelFiles


@pytest.fixture(scope="session", params=["llamacpp"])
async def engine(model_files: ModelFiles) -> AsyncIterator[Engine]:
    adapters = Catalog(None, model_files.embedder.parent).ready(model_files.base)
    engine = LlamaCppEngine(model_files.base, adapters, slots=4, context_tokens=1024)
    await engine.start()
    yield engine
    await engine.stop()
