"""Every engine, started once, with the shipped adapters.

Each engine has a module here, ``NAME_engine``, with ``start(bases) -> Engine``. vLLM takes an
environment of its own and runs by ``make test-vllm``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.engines.base import Engine
from gateway.assets import ModelFiles

ENGINES = ["vllm"] if "KIKI_TEST_VLLM" in os.environ else ["llamacpp", "mlx"]


@dataclass(frozen=True, slots=True)
class Bases:
    """One base model in the forms that engines read, and a folder for what they convert."""

    gguf: Path
    f32_gguf: Path
    hf: Path
    models_dir: Path


@pytest.fixture(scope="session")
def bases(model_files: ModelFiles, f32_base: Path, hf_base: Path) -> Bases:
    return Bases(model_files.base, f32_base, hf_base, model_files.embedder.parent)


@pytest.fixture(scope="session", params=ENGINES)
async def engine(request: pytest.FixtureRequest, bases: Bases) -> AsyncIterator[Engine]:
    """On F32 weights, where a mix can be held against the sum of its parts."""
    start = importlib.import_module(f"tests.contract.{request.param}_engine").start
    engine: Engine = await start(bases)
    yield engine
    await engine.stop()
