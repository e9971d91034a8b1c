"""vLLM's CPU build with the shipped adapters, in the environment that scripts/setup-vllm makes."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from adapters.engines.base import Engine
from adapters.engines.vllm import VllmConfig, VllmEngine
from tests.contract.conftest import Bases
from tests.contract.shipped import shipped
from tests.waiting import until

COMMAND = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "vllm"


def config(model: Path, **changes) -> VllmConfig:
    """In float32, where batches of another shape give the same tokens."""
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} isn't there; make it with: scripts/setup-vllm")
    settings: dict[str, Any] = {
        "model": str(model),
        "command": (str(COMMAND),),
        "slots": 4,
        "context_tokens": 1024,
        "dtype": "float32",
        # A probe that falls into an answer makes a batch of two, which is not the same to the bit.
        "probe_interval": 600.0,
        "extra_args": ("--enforce-eager",),
        "environment": (("VLLM_CPU_KVCACHE_SPACE", "1"), ("KMP_BLOCKTIME", "0")),
    }
    return VllmConfig(**settings | changes)


async def start(bases: Bases) -> VllmEngine:
    engine = VllmEngine(config(bases.hf), Path(tempfile.mkdtemp()))
    assert await engine.set_adapters(shipped()) == ()
    await engine.start()
    return engine


async def crash(engine: Engine) -> None:
    """Kill the server's process and wait until that is seen."""
    assert isinstance(engine, VllmEngine)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.state != "ready")
