"""vLLM as a child process, under ``supervisor.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys

from adapters.engines.child import Program
from adapters.engines.vllm.config import VllmConfig
from kiki.errors import EngineUnavailableError


def program(config: VllmConfig, api_key: str, lora_rank: int) -> Program:
    """How to run the configured server as a child process."""
    command = serve_command(config, lora_rank)
    environment = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_API_KEY": api_key,
        "VLLM_NO_USAGE_STATS": "1",
        **dict(config.environment),
    }

    async def handshake(process: asyncio.subprocess.Process) -> str:
        if shutil.which(config.command[0]) is None:
            raise EngineUnavailableError(
                f"There is no program {config.command[0]!r}, which starts vLLM.",
                fix="Install vLLM, name its program with vllm_command, or running servers with "
                "vllm_urls.",
            )
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps({"command": command}).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        return str(json.loads(line)["url"]) if line else ""

    run = (sys.executable, "-m", "adapters.engines.vllm.supervisor")
    return Program("vLLM", config.model, run, handshake, environment)


def serve_command(config: VllmConfig, lora_rank: int) -> list[str]:
    """``vllm serve`` with what the settings say; the port is added where it is run."""
    options: dict[str, object] = {
        "host": "127.0.0.1",
        "max-model-len": config.context_tokens,
        "max-num-seqs": config.slots,
        "max-loras": config.max_loras,
        "max-lora-rank": lora_rank,
        "dtype": config.dtype,
        "tensor-parallel-size": config.tensor_parallel_size,
    }
    if config.quantization:
        options["quantization"] = config.quantization
    if config.gpu_memory_utilization is not None:
        options["gpu-memory-utilization"] = config.gpu_memory_utilization
    flags = ["--enable-lora"]
    if config.has_parsers:
        options |= {"reasoning-parser": "qwen3", "tool-call-parser": "qwen3_coder"}
        flags.append("--enable-auto-tool-choice")
    pairs = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return [*config.command, "serve", config.model, *flags, *pairs, *config.extra_args]
