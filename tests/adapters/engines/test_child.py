from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from adapters.engines.child import Child, Program
from adapters.engines.llamacpp.server import ServerSpec
from adapters.engines.vllm import VllmConfig
from adapters.engines.vllm.managed import program
from kiki.errors import EngineUnavailableError
from tests.waiting import alive, until

# Listens on the port that comes last, in vLLM's place.
LISTENER = """
import http.server, sys
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[-1]), bind="127.0.0.1")
"""
SLEEPER = (sys.executable, "-c", "import sys; sys.stdin.read()")


async def address(process: asyncio.subprocess.Process) -> str:
    return "http://127.0.0.1:1"


@pytest.fixture(params=["llama.cpp", "vLLM"])
def run(request, base_gguf) -> Program:
    if request.param == "vLLM":
        return program(VllmConfig("m", command=(sys.executable, "-c", LISTENER)), "key", 64)
    return ServerSpec(str(base_gguf), (), 1, 256, 1, "f16", None).program()


async def test_a_probe_that_fails_in_an_unforeseen_way_is_a_start_that_failed():
    async def probe(url: str) -> bool:
        raise KeyError("usage")

    child = Child(Program("test", "nothing", SLEEPER, address), probe)
    with pytest.raises(EngineUnavailableError, match="did not start: 'usage'"):
        await child.start()
    assert child.state == "down"
    assert child.pid is None
    await child.stop()


async def test_the_restarts_go_on_whatever_one_of_them_raised(run):
    failures = [KeyError("usage"), OSError("no such port")]
    answers: Iterator[bool | Exception] = iter([True, *failures, True])

    async def probe(url: str) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    child = Child(run, probe)
    await child.start()
    os.kill(_pid(child), signal.SIGKILL)
    await until(lambda: child.restarts == 1)
    assert child.state == "ready"
    assert next(answers, None) is None
    await child.stop()


async def test_a_stop_during_a_restart_ends_it():
    probed = asyncio.Event()

    async def probe(url: str) -> bool:
        if probed.is_set():
            await asyncio.Event().wait()
        probed.set()
        return True

    child = Child(Program("test", "nothing", SLEEPER, address), probe)
    await child.start()
    first = _pid(child)
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.state == "starting" and child.pid not in (first, None))
    await child.stop()
    assert (child.state, child.pid) == ("stopped", None)


async def test_a_stop_that_is_cancelled_leaves_no_process():
    async def probe(url: str) -> bool:
        return True

    deaf = (sys.executable, "-c", "import time; time.sleep(600)")
    child = Child(Program("test", "nothing", deaf, address), probe)
    await child.start()
    pid = _pid(child)
    stopping = asyncio.create_task(child.stop())
    await until(lambda: child.pid is None)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await until(lambda: not alive(pid))


def _pid(child: Child) -> int:
    assert child.pid is not None
    return child.pid
