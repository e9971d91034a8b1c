from __future__ import annotations

import asyncio
import sys

import pytest

from adapters.engines.child import Child, Program
from kiki.errors import EngineUnavailableError


async def address(process: asyncio.subprocess.Process) -> str:
    return "http://127.0.0.1:1"


async def test_a_probe_that_fails_in_an_unforeseen_way_is_a_start_that_failed():
    async def probe(url: str) -> bool:
        raise KeyError("usage")

    sleeper = (sys.executable, "-c", "import sys; sys.stdin.read()")
    child = Child(Program("test", "nothing", sleeper, address), probe)
    with pytest.raises(EngineUnavailableError, match="did not start: 'usage'"):
        await child.start()
    assert child.state == "down"
    assert child.pid is None
    await child.stop()
