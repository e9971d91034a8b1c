"""Another set of adapters while rows are in flight, and what may go wrong then."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import LlamaCppEngine
from adapters.mix import BASE, Mix
from kiki.errors import EngineUnavailableError, UnknownAdapterError
from tests.contract.shipped import shipped
from tests.waiting import alive, until


def ask(mix: Mix, max_tokens: int = 4) -> GenerateRequest:
    messages = (Message("user", "How do I list hidden files?"),)
    return GenerateRequest(messages, mix, Sampling(max_tokens, 0.0))


SHELL, SQL = ask(Mix.single("shell")), ask(Mix.single("sql"))
STORY = GenerateRequest(
    (Message("user", "Write a very long story."),), BASE, Sampling(3000, 1.0, seed=1)
)


@pytest.fixture
async def engine(base_gguf, models_dir):
    made = LlamaCppEngine(base_gguf, cache_dir=models_dir / "adapters", slots=2)
    assert await made.set_adapters(shipped("shell")) == ()
    await made.start()
    yield made
    await made.stop()


async def test_a_change_is_told_with_its_seconds(engine):
    swaps = []
    engine.swaps.listener = lambda method, seconds: swaps.append((method, seconds))
    assert await engine.set_adapters(shipped("shell", "sql")) == ()
    assert await engine.set_adapters(shipped("shell", "sql")) == ()
    ((method, seconds),) = swaps
    assert method == "restart"
    assert seconds > 0


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


async def test_an_answer_that_nobody_reads_keeps_no_retired_server(engine):
    old = engine.pid
    async with aclosing(engine.generate([replace(SHELL, sampling=Sampling(8, 0.0))])) as unread:
        await anext(unread)
        assert await engine.set_adapters(shipped("sql")) == ()
        await until(lambda: not alive(old))
        assert [delta async for delta in unread][-1].finish_reason == "length"


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


@pytest.fixture
async def alone(base_gguf, tmp_path):
    """An engine whose files nobody else has open."""
    made = LlamaCppEngine(base_gguf, cache_dir=tmp_path, slots=1, context_tokens=256)
    assert await made.set_adapters(shipped("shell")) == ()
    yield made
    await made.stop()


def opened(folder: Path) -> set[str]:
    """The names of the files below ``folder`` that this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            file = entry.readlink()
        except FileNotFoundError:  # the listing itself
            continue
        if file.is_relative_to(folder):
            found.add(file.name.partition("-")[0])
    return found


class Gate:
    """Lets the preparation of files go on when it is opened."""

    def __init__(self, engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        prepare = engine._files.prepare

        def wait_and_prepare(adapters):
            self.reached.set()
            self.open.wait()
            return prepare(adapters)

        monkeypatch.setattr(engine._files, "prepare", wait_and_prepare)


linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")


@linux
async def test_a_stopped_engine_takes_no_adapters_and_holds_no_file(alone, tmp_path):
    await alone.start()
    pid = alone.pid
    assert opened(tmp_path) == {"shell"}
    await alone.stop()
    with pytest.raises(EngineUnavailableError, match="was stopped"):
        await alone.set_adapters(shipped("sql"))
    with pytest.raises(EngineUnavailableError, match="stopped"):
        await complete(alone, [SHELL])
    assert (alive(pid), alone.pid, alone.state) == (False, None, "stopped")
    assert opened(tmp_path) == set()


@linux
async def test_a_stop_while_files_are_prepared_starts_no_server(alone, tmp_path, monkeypatch):
    await alone.start()
    gate = Gate(alone, monkeypatch)
    change = asyncio.create_task(alone.set_adapters(shipped("sql")))
    await until(gate.reached.is_set)
    await alone.stop()
    gate.open.set()
    with pytest.raises(EngineUnavailableError, match="was stopped"):
        await change
    assert (alone.pid, alone.state) == (None, "stopped")
    assert opened(tmp_path) == set()


@linux
@pytest.mark.parametrize("started", [True, False], ids=["started", "before the start"])
async def test_who_is_cancelled_while_files_are_prepared_leaves_none_open(
    alone, tmp_path, monkeypatch, started
):
    if started:
        await alone.start()
    gate = Gate(alone, monkeypatch)
    change = asyncio.create_task(alone.set_adapters(shipped("sql")))
    await until(gate.reached.is_set)
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    gate.open.set()
    monkeypatch.undo()
    # It comes after the one that was cancelled: making files is done by one at a time.
    assert await alone.set_adapters(shipped("python")) == ()
    await until(lambda: opened(tmp_path) == {"python"})
    assert alone.adapters == ("python",)


async def test_a_stop_ends_a_start(alone):
    starting = asyncio.create_task(alone.start())
    await until(lambda: alone.pid is not None)
    pid = alone.pid
    await alone.stop()
    with pytest.raises(EngineUnavailableError):
        await starting
    assert (alive(pid), alone.pid, alone.state) == (False, None, "stopped")


async def test_a_stop_before_the_process_is_there_ends_a_start(alone):
    starting = asyncio.create_task(alone.start())
    await until(lambda: alone._replica is not None)
    child = alone._replica.child
    await alone.stop()
    with pytest.raises(EngineUnavailableError, match="was stopped"):
        await starting
    assert (child.pid, child.state) == (None, "stopped")


async def test_a_stopped_engine_starts_again_with_the_adapters_it_is_then_given(alone):
    await alone.start()
    await alone.stop()
    await alone.start()
    assert alone.adapters == ()
    assert await alone.set_adapters(shipped("sql")) == ()
    assert (await complete(alone, [SQL]))[0].text
