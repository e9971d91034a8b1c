"""Every engine, started once, with the shipped adapters.

Each engine has a module here, ``NAME_engine``, with ``start(bases) -> Engine``; what it says of
itself beyond that is in ``Traits``. vLLM takes an environment of its own and runs by
``make test-vllm``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.engines.base import Engine
from tests.contract.reference import Reference
from tests.contract.shipped import shipped

ENGINES = ["vllm"] if "TEST_VLLM" in os.environ else ["llamacpp", "mlx"]


@dataclass(frozen=True, slots=True)
class Bases:
    """One base model in the forms that engines read, and a folder for what they convert."""

    gguf: Path
    f32_gguf: Path
    hf: Path
    models_dir: Path


@dataclass(frozen=True, slots=True)
class Traits:
    """How near an engine comes, in nats of a log-probability; the module's constants of that name.

    ``reference_tolerance`` is to torch on the same F32 weights; ``batch_tolerance`` between a row
    alone and the same row in a batch or on a cached prefix. ``crash`` ends the engine's process
    (the module's ``async def crash(engine)``); None for an engine inside this one.
    """

    reference_tolerance: float
    batch_tolerance: float
    crash: Callable[[Engine], Awaitable[None]] | None


@pytest.fixture(scope="session")
def bases(base_gguf: Path, f32_base: Path, hf_base: Path, models_dir: Path) -> Bases:
    return Bases(base_gguf, f32_base, hf_base, models_dir)


@pytest.fixture(scope="session", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
async def engine(engine_name: str, bases: Bases) -> AsyncIterator[Engine]:
    """On F32 weights, where a mix can be held against the sum of its parts."""
    start = importlib.import_module(f"tests.contract.{engine_name}_engine").start
    engine: Engine = await start(bases)
    assert await engine.set_adapters(shipped()) == ()
    yield engine
    await engine.stop()


@pytest.fixture(scope="session")
def traits(engine_name: str) -> Traits:
    module = vars(importlib.import_module(f"tests.contract.{engine_name}_engine"))
    return Traits(
        module.get("REFERENCE_TOLERANCE", 1e-4),
        module.get("BATCH_TOLERANCE", 1e-4),
        module.get("crash"),
    )


@pytest.fixture
async def changing(engine: Engine) -> AsyncIterator[Engine]:
    """An engine whose adapters the test may change; they are as before afterwards."""
    yield engine
    assert await engine.set_adapters(shipped()) == ()


@pytest.fixture(scope="session")
def reference(bases: Bases) -> Reference:
    return Reference(bases.hf)
