"""Another set of adapters while rows are in flight, and what may go wrong then."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from dataclasses import replace

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import LlamaCppEngine
from adapters.mix import BASE, Mix
from kiki.errors import EngineUnavailableError, UnknownAdapterError
from tests.contract.shipped import shipped
from tests.waiting import until


def ask(mix: Mix, max_tokens: int = 4) -> GenerateRequest:
    messages = (Message("user", "How do I list hidden files?"),)
    return GenerateRequest(messages, mix, Sampling(max_tokens, 0.0))


SHELL, SQL = ask(Mix.single("shell")), ask(Mix.single("sql"))
STORY = GenerateRequest(
    (Message("user", "Write a very long story."),), BASE, Sampling(3000, 1.0, seed=1)
)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
async def engine(base_gguf, models_dir):
    made = LlamaCppEngine(base_gguf, cache_dir=models_dir / "adapters", slots=2)
    assert await made.set_adapters(shipped("shell")) == ()
    await made.start()
    yield made
    await made.stop()


async def test_rows_in_flight_keep_the_first_server_until_they_are_done(engine):
    old = engine.pid
    async with aclosing(engine.generate([STORY])) as deltas:
        await anext(deltas)
        assert await engine.set_adapters(shipped("sql")) == ()
        assert engine.pid != old
        await complete(engine, [SQL])
        with pytest.raises(UnknownAdapterError):
            await complete(engine, [SHELL])
        await anext(deltas)
        assert alive(old)
    await until(lambda: not alive(old))
    assert engine.restarts == 0


async def test_an_unchanged_set_changes_nothing(engine):
    pid = engine.pid
    assert await engine.set_adapters(shipped("shell")) == ()
    assert engine.pid == pid


async def test_changes_at_once_come_one_after_the_other(engine):
    sets = [shipped("sql"), shipped("sql", "shell"), shipped("python")]
    await asyncio.gather(*(engine.set_adapters(adapters) for adapters in sets))
    assert engine.adapters == ("python",)
    assert (await complete(engine, [ask(Mix.single("python"))]))[0].text


async def test_a_set_that_cannot_start_leaves_the_old_one_serving(engine, monkeypatch):
    """llama.cpp is given a file that passed every check and is gone when it is read."""
    before = (await complete(engine, [SHELL]))[0].text
    pid, prepare = engine.pid, engine._files.prepare

    def prepare_badly(adapters):
        held, refused = prepare(adapters)
        files = {name: path.with_suffix(".gone") for name, path in held.files.items()}
        return replace(held, files=files), refused

    monkeypatch.setattr(engine._files, "prepare", prepare_badly)
    with pytest.raises(EngineUnavailableError, match=r"goes on with the adapters it had.*\.gone"):
        await engine.set_adapters(shipped("sql"))
    assert (engine.pid, engine.adapters, engine.state) == (pid, ("shell",), "ready")
    assert (await complete(engine, [SHELL]))[0].text == before
    monkeypatch.undo()
    assert await engine.set_adapters(shipped("sql")) == ()
    assert (await complete(engine, [SQL]))[0].text


async def test_a_crash_during_a_change_loses_neither_server(engine):
    change = asyncio.create_task(engine.set_adapters(shipped("sql")))
    await until(lambda: engine._incoming is not None)
    os.kill(engine.pid, signal.SIGKILL)
    assert await change == ()
    assert (await complete(engine, [SQL]))[0].text
    pid = engine.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: engine.state == "ready" and engine.pid != pid)
    assert (await complete(engine, [SQL]))[0].text
    assert engine.restarts >= 1


async def test_a_new_set_brings_back_an_engine_that_is_down(engine):
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.state == "down")
    assert await engine.set_adapters(shipped("sql")) == ()
    assert (await complete(engine, [SQL]))[0].text


async def test_a_stop_ends_a_change_and_leaves_no_process(engine):
    change = asyncio.create_task(engine.set_adapters(shipped("sql")))
    await until(lambda: engine._incoming is not None and engine._incoming.child.pid is not None)
    pids = [engine.pid, engine._incoming.child.pid]
    await engine.stop()
    with pytest.raises(EngineUnavailableError):
        await change
    assert not any(alive(pid) for pid in pids)
    assert engine.state == "stopped"


async def test_a_cancelled_change_leaves_the_old_set_and_no_second_process(engine):
    change = asyncio.create_task(engine.set_adapters(shipped("sql")))
    await until(lambda: engine._incoming is not None and engine._incoming.child.pid is not None)
    second = engine._incoming.child.pid
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    assert not alive(second)
    assert engine.adapters == ("shell",)
    assert (await complete(engine, [SHELL]))[0].text


async def test_readiness_does_not_wait_for_another_mixs_turn(engine):
    async with aclosing(engine.generate([replace(STORY, mix=SHELL.mix)])) as deltas:
        await anext(deltas)
        assert await engine.ready()
        await anext(deltas)
