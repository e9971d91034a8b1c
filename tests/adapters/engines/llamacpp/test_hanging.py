"""A server that lives and answers nothing is found out, and replaced."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from adapters.engines import child
from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import LlamaCppEngine, replica
from kiki.errors import EngineUnavailableError
from tests.waiting import until

HELLO = GenerateRequest((Message("user", "Hello."),), sampling=Sampling(4, 0.0))


@pytest.fixture
async def engine(base_gguf, models_dir, monkeypatch):
    monkeypatch.setattr(child, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(replica, "HANGS_AFTER", 5.0)
    made = LlamaCppEngine(base_gguf, cache_dir=models_dir / "adapters", slots=1)
    await made.start()
    yield made
    await made.stop()


async def test_a_server_that_hangs_is_killed_and_started_again(engine):
    before = await complete(engine, [HELLO])
    hung = engine.pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    asking = asyncio.create_task(complete(engine, [HELLO]))
    await until(lambda: engine.restarts == 1, seconds=120)
    with pytest.raises(EngineUnavailableError):
        await asking
    assert engine.pid != hung
    assert await complete(engine, [HELLO]) == before


async def test_a_server_that_works_is_left_alone(engine):
    story = GenerateRequest((Message("user", "Tell a story."),), sampling=Sampling(200, 1.0))
    await complete(engine, [story])
    await asyncio.sleep(1)  # several looks
    assert engine.restarts == 0
