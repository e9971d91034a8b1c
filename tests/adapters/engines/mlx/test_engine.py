"""Starting, failing, coming back, and adapters that come and go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from mlx_lm.generate import GenerationBatch

from adapters.engines.base import Message
from adapters.engines.mlx import MlxConfig, MlxEngine
from adapters.engines.mlx.cache import PrefixCache
from adapters.engines.mlx.runner import MOST_FAILURES, Runner
from adapters.forms import read_lora, write_lora
from adapters.mix import BASE, Mix
from kiki.errors import (
    EngineError,
    EngineUnavailableError,
    RequestError,
    UnknownAdapterError,
)
from tests.adapters.engines.mlx.serving import (
    ask,
    difference,
    make_adapters,
    one,
    started,
    stats,
    tokens,
    write_base,
)
from tests.contract.shipped import adapter_at
from tests.waiting import until

A, B = Mix.single("a"), Mix.single("b")
CLOSE = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlx")


@pytest.fixture(scope="module")
def base(folder):
    return write_base(folder, None)


@pytest.fixture(scope="module")
def adapters(folder):
    return make_adapters(folder, "a", "b", "c", "d")


@pytest.fixture(scope="module")
async def shared(base, adapters):
    async with started(base, adapters) as engine:
        yield engine


@pytest.fixture
async def engine(shared, adapters):
    """With all four adapters, whatever the test before did."""
    await shared.set_adapters(adapters)
    return shared


async def test_a_stop_ends_rows_in_flight_with_an_error(base):
    engine = MlxEngine(base, MlxConfig(context_tokens=600))
    await engine.start()
    deltas = engine.generate([ask(max_tokens=400)])
    await anext(deltas)
    await engine.stop()
    with pytest.raises(EngineUnavailableError, match="ended"):
        [delta async for delta in deltas]


async def test_an_adapter_that_does_not_fit_the_model_is_refused_with_the_module(
    engine, adapters, tmp_path
):
    lora = read_lora(adapters[0].path)
    name = "layers.3.self_attn.q_proj"
    weight = lora.weights[name]
    wrong = replace(lora, weights={name: replace(weight, a=weight.a[:, :64])})
    write_lora(wrong, "mlx", tmp_path / "narrow")
    narrow = adapter_at(tmp_path / "narrow")
    (refusal,) = await engine.set_adapters([narrow, adapters[1]])
    assert (refusal.name, refusal.path) == ("narrow", narrow.path)
    assert name in refusal.reason
    assert engine.adapters == ("b",)
    with pytest.raises(UnknownAdapterError, match="narrow"):
        await one(engine, ask(Mix.single("narrow")))


async def test_what_is_named_before_the_start_and_does_not_fit_is_in_refused(
    base, adapters, tmp_path
):
    missing = replace(adapters[0], name="gone", path=tmp_path / "gone", fingerprint="0")
    async with started(base, [missing, adapters[1]]) as engine:
        assert [refusal.name for refusal in engine.refused] == ["gone"]
        assert engine.adapters == ("b",)


async def test_a_row_in_flight_keeps_the_version_it_began_with(engine, turns, adapters, tmp_path):
    request = ask(A, max_tokens=60)
    before = await one(engine, request)
    turns.only(5)
    running = asyncio.create_task(one(engine, request))
    await turns.taken()
    (other,) = make_adapters(tmp_path, "z")
    assert await engine.set_adapters([replace(other, name="a"), adapters[1]]) == ()
    after = asyncio.create_task(one(engine, ask(A, max_tokens=4)))
    await until(lambda: stats(engine).waiting_rows == 1)
    assert stats(engine).active_rows == 1
    turns.free()
    assert tokens(await after) != tokens(before)[:4]
    assert difference(await running, before) < CLOSE


async def test_a_failing_step_ends_the_rows_in_it_and_the_next_ones_run(engine, monkeypatch):
    expected = await one(engine, ask(B))
    step, failed = GenerationBatch._step, list[bool]()

    def fails_once(batch):
        if len(batch.uids) == 2 and not failed:
            failed.append(True)
            raise RuntimeError("[malloc] Unable to allocate")
        return step(batch)

    monkeypatch.setattr(GenerationBatch, "_step", fails_once)
    running = engine.generate([ask(A, max_tokens=200), ask(B, max_tokens=200)])
    with pytest.raises(EngineError, match=r"RuntimeError: \[malloc\] Unable to allocate"):
        [delta async for delta in running]
    assert engine.state == "ready"
    assert stats(engine).failures == 1
    assert difference(await one(engine, ask(B)), expected) < CLOSE


async def test_a_failing_prompt_ends_its_row_alone(engine, turns, monkeypatch):
    alone = await one(engine, ask(A, max_tokens=60))
    turns.only(5)
    running = asyncio.create_task(one(engine, ask(A, max_tokens=60)))
    await turns.taken()

    keep = PrefixCache.keep_prompt

    def fails_for_b(cache, setup, tokens, state):
        if setup[0].names[0].startswith("b@"):
            raise MemoryError("no room")
        keep(cache, setup, tokens, state)

    monkeypatch.setattr(PrefixCache, "keep_prompt", fails_for_b)
    failing = asyncio.create_task(one(engine, ask(B, "Another prompt.")))
    await until(lambda: stats(engine).waiting_rows == 1)
    assert stats(engine).active_rows == 1
    turns.free()
    with pytest.raises(EngineError, match="MemoryError: no room"):
        await failing
    assert difference(await running, alone) < CLOSE


async def test_an_engine_that_keeps_failing_loads_its_model_anew(base, adapters, monkeypatch):
    async with started(base, adapters) as engine:
        expected = await one(engine, ask(A))

        def fails(batch):
            raise RuntimeError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(GenerationBatch, "_step", fails)
            for _ in range(MOST_FAILURES):
                with pytest.raises(EngineError):
                    await one(engine, ask(A))
            await until(lambda: engine.state == "down")
            with pytest.raises(EngineUnavailableError) as caught:
                await one(engine, ask(A))
            assert caught.value.retry_after >= 1
        await until(lambda: engine.state == "ready")
        assert engine.restarts == 1
        assert tokens(await one(engine, ask(A))) == tokens(expected)


async def test_rows_that_wait_are_told_when_the_thread_ends(base, turns, monkeypatch):
    async with started(base, [], slots=1) as engine:
        turns.only(5)
        rows = [asyncio.create_task(one(engine, ask(max_tokens=300))) for _ in range(3)]
        await turns.taken()
        await until(lambda: stats(engine).waiting_rows == 2)
        turn = Runner.turn

        def dies(runner):
            raise RuntimeError("gone")

        monkeypatch.setattr(Runner, "turn", dies)
        for row in rows:
            with pytest.raises(EngineUnavailableError, match="ended"):
                await row
        monkeypatch.setattr(Runner, "turn", turn)
        turns.free()
        await until(lambda: engine.state == "ready")


async def test_a_schema_that_is_none_is_refused(engine):
    with pytest.raises(RequestError, match="JSON schema can't be kept"):
        await one(engine, ask(BASE, json_schema={"type": "nonsense"}))


async def test_a_character_of_several_tokens_comes_whole(engine):
    schema = {"enum": ["é€😀"]}
    async with aclosing(engine.generate([ask(json_schema=schema, max_tokens=40)])) as deltas:
        pieces = [delta.text async for delta in deltas]
    assert "".join(pieces).strip() == '"é€😀"'
    assert not any("\ufffd" in piece for piece in pieces)


async def test_an_empty_conversation_still_has_a_prompt(engine):
    answer = await one(engine, replace(ask(), messages=(Message("user", ""),)))
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens == 12
