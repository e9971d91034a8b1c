"""The child process around ``vllm serve``, with a small program in its place."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

from adapters.engines.child import Child
from adapters.engines.vllm import VllmConfig
from adapters.engines.vllm.managed import program, serve_command
from kiki.errors import EngineUnavailableError
from tests.waiting import until

# Serves its folder on the port that comes last, and notes who it is.
SERVER = """
import http.server, os, sys
open("pid", "w").write(str(os.getpid()))
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[-1]), bind="127.0.0.1")
"""


def options(**changes) -> list[str]:
    return serve_command(VllmConfig(model="Qwen/Qwen3.6-35B-A3B", **changes), 64)


def test_the_command_carries_the_settings():
    command = options(
        max_loras=8,
        quantization="fp8",
        tensor_parallel_size=2,
        gpu_memory_utilization=0.85,
        extra_args=("--enforce-eager",),
    )
    line = " ".join(command)
    assert line.startswith("vllm serve Qwen/Qwen3.6-35B-A3B --enable-lora")
    for option in (
        "--max-loras 8",
        "--max-lora-rank 64",
        "--quantization fp8",
        "--tensor-parallel-size 2",
        "--gpu-memory-utilization 0.85",
        "--reasoning-parser qwen3",
        "--tool-call-parser qwen3_coder",
        "--enable-auto-tool-choice",
    ):
        assert option in line
    assert command[-1] == "--enforce-eager"


def test_only_qwen_3_5_and_later_get_its_parsers_unless_the_setting_says_so():
    assert "--reasoning-parser" in serve_command(VllmConfig(model="qwen3.5-9b"), 64)
    for other in ("SmolLM2", "Qwen/Qwen3-8B", "Qwen3-235B-A22B", "qwen3-0.6b-instruct"):
        assert "--reasoning-parser" not in serve_command(VllmConfig(model=other), 64)
    assert "--reasoning-parser" in serve_command(VllmConfig(model="mine", parsers=True), 64)
    assert "--reasoning-parser" not in options(parsers=False)


@pytest.fixture
def child(tmp_path, monkeypatch) -> Child:
    monkeypatch.chdir(tmp_path)
    config = VllmConfig(model="m", command=(sys.executable, "-c", SERVER))

    async def probe(url: str) -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(url)).status_code == 200

    return Child(program(config, "key", 64), probe)


def lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
async def test_the_server_ends_with_its_parent(child, tmp_path):
    await child.start()
    server = int((tmp_path / "pid").read_text())
    assert lives(server)
    await child.stop()
    await until(lambda: not lives(server))


@linux
async def test_the_server_does_not_outlive_a_killed_child_and_is_started_again(child, tmp_path):
    await child.start()
    first, server = child.url, int((tmp_path / "pid").read_text())
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: not lives(server))
    await until(lambda: child.state == "ready" and child.restarts == 1)
    assert child.url != first
    await child.stop()


async def test_a_server_that_ends_at_once_is_said_with_its_last_words():
    command = (sys.executable, "-c", "import sys; sys.exit('no device found')")

    async def probe(url: str) -> bool:
        return True

    child = Child(program(VllmConfig(model="m", command=command), "key", 64), probe)
    with pytest.raises(EngineUnavailableError, match="no device found"):
        await child.start()
    await child.stop()


async def test_a_command_that_is_not_there_is_named():
    async def probe(url: str) -> bool:
        return True

    config = VllmConfig(model="m", command=("no-such-vllm",))
    child = Child(program(config, "key", 64), probe)
    with pytest.raises(EngineUnavailableError, match="no program 'no-such-vllm'") as caught:
        await child.start()
    assert "vllm_command" in str(caught.value.fix)
    await child.stop()


def test_the_key_stands_in_no_command_line_and_no_description():
    config = VllmConfig("base", api_key="s3cret", environment=(("HF_TOKEN", "s3cret"),))
    run = program(config, "s3cret", 16)
    assert "s3cret" not in " ".join([*run.command, *serve_command(config, 16), repr(config)])
    assert run.environment["VLLM_API_KEY"] == "s3cret"
