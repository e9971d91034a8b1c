"""vLLM's CPU build with the shipped adapters, in the environment that scripts/setup-vllm makes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest

from adapters.adapter import Adapter
from adapters.catalog import SHIPPED
from adapters.engines.vllm import VllmConfig, VllmEngine
from tests.contract.conftest import Bases

COMMAND = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "vllm"


def config(model: Path, **changes) -> VllmConfig:
    """In float32, where batches of another shape give the same tokens."""
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} isn't there; make it with: scripts/setup-vllm")
    return VllmConfig(
        **{
            "model": str(model),
            "command": (str(COMMAND),),
            "slots": 8,
            "context_tokens": 1024,
            "dtype": "float32",
            "extra_args": ("--enforce-eager",),
            "environment": (("VLLM_CPU_KVCACHE_SPACE", "1"), ("KMP_BLOCKTIME", "0")),
        }
        | changes
    )


def peft_adapter(folder: Path) -> Adapter:
    """A PEFT folder as the engine takes it."""
    config = json.loads((folder / "adapter_config.json").read_text())
    weights = (folder / "adapter_model.safetensors").read_bytes()
    print_of = hashlib.sha256(weights + json.dumps(config).encode()).hexdigest()
    base = config["base_model_name_or_path"]
    return Adapter(
        folder.name, folder, "peft", config["r"], config["lora_alpha"], len(weights), base, print_of
    )


def shipped() -> list[Adapter]:
    return [peft_adapter(folder) for folder in sorted(SHIPPED.iterdir()) if folder.is_dir()]


async def start(bases: Bases) -> VllmEngine:
    engine = VllmEngine(config(bases.hf), Path(tempfile.mkdtemp()))
    refused = await engine.set_adapters(shipped())
    assert refused == ()
    await engine.start()
    return engine
