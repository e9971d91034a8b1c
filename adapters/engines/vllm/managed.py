"""vLLM as a child process: ``python -m adapters.engines.vllm.managed``.

Reads one line of JSON from stdin (the command), runs it with a free port, prints one line of JSON
with the address once it listens, and ends the server when stdin closes, so that it can't outlive
a parent that was killed and keep the device's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from adapters.engines.child import Program
from adapters.engines.vllm.config import VllmConfig

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Seconds between asking the server to end and ending it, and then for what it left; the parent
# waits 5.
GRACE, CLEAN_UP = 3.0, 1.5


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
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps({"command": command}).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        return str(json.loads(line)["url"]) if line else ""

    run = (sys.executable, "-m", "adapters.engines.vllm.managed")
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


def main() -> None:
    command = json.loads(sys.stdin.readline())["command"]
    port = _free_port()
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # the address is the only line on stdout
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    threading.Thread(target=_end_when_stdin_closes, args=(server,), daemon=True).start()
    while server.poll() is None and not _listens(port):
        time.sleep(0.1)
    if server.poll() is None:
        print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    code = server.wait()
    _end_group(server.pid)
    os._exit(code if code >= 0 else 128 - code)


def _end_when_stdin_closes(server: subprocess.Popen[bytes]) -> None:
    sys.stdin.read()
    server.terminate()  # it ends its workers in order, and frees their shared memory
    time.sleep(GRACE)
    server.kill()


def _end_group(group: int) -> None:
    """End the workers that a server left behind.

    Python's resource tracker is among them: it ignores the request, frees their shared memory
    once they are gone, and ends; killed too early, it would leave that behind.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + CLEAN_UP
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def _end_with_parent() -> None:
    # This process may be killed outright; on Linux the kernel then tells the server to end.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
