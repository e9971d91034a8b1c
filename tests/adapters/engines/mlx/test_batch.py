"""Rows run together, each with its own mix, and each as if it were alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from adapters.engines.base import Completion, Delta, collect, complete
from adapters.engines.mlx import MlxEngine
from adapters.mix import BASE, Mix
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
from tests.waiting import until

A, B = Mix.single("a"), Mix.single("b")
MIXES = [BASE, A, B, Mix.of({"a": 0.6, "b": -0.4, "c": 0.3, "d": 0.2})]
# Log-probabilities in float32, rows padded and summed in other shapes.
CLOSE = 1e-3


@pytest.fixture(scope="module", params=[None, 4], ids=["float32", "4-bit"])
async def engine(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlx")
    adapters = make_adapters(folder, "a", "b", "c", "d")
    async with started(write_base(folder, request.param), adapters) as engine:
        yield engine


@pytest.fixture(scope="module")
async def pieces(tmp_path_factory):
    """An engine that computes prompts seven tokens at a time."""
    folder = tmp_path_factory.mktemp("mlx")
    adapters = make_adapters(folder, "a", "b")
    async with started(write_base(folder, None), adapters, prefill_tokens=7) as engine:
        yield engine


async def test_four_different_mixes_at_once_equal_their_single_runs(engine):
    requests = [ask(mix, f"Number {i}." * (i + 1)) for i, mix in enumerate(MIXES)]
    alone = [await one(engine, request) for request in requests]
    together = await complete(engine, requests)
    for here, there in zip(together, alone, strict=True):
        assert difference(here, there) < CLOSE
    assert len({tuple(tokens(answer)) for answer in alone}) == 4


@pytest.mark.parametrize("joining", [BASE, A, B], ids=str)
async def test_who_joins_in_mid_flight_equals_its_single_run_and_changes_nobody(
    engine, turns, joining
):
    long, short = ask(A, max_tokens=100), ask(joining, "And you? " * 8, max_tokens=8)
    alone = [await one(engine, request) for request in (long, short)]
    turns.only(5)
    running = asyncio.create_task(one(engine, long))
    await turns.taken()
    joining = asyncio.create_task(one(engine, short))
    await until(lambda: stats(engine).waiting_rows == 1)
    assert stats(engine).active_rows == 1
    turns.free()
    assert difference(await joining, alone[1]) < CLOSE
    assert difference(await running, alone[0]) < CLOSE
    assert turns.most_active == 2


async def test_rows_beyond_the_slots_wait_their_turn_in_order(engine):
    requests = [ask(MIXES[i % 4], f"Row {i}.", max_tokens=4) for i in range(7)]
    alone = [await one(engine, request) for request in requests]
    ended = []
    async with aclosing(engine.generate(requests)) as deltas:
        seen = []
        async for delta in deltas:
            seen.append(delta)
            assert stats(engine).active_rows <= 4
            if delta.finish_reason:
                ended.append(delta.row)
    assert ended == list(range(7))
    await assert_same(seen, alone)


async def test_a_row_that_is_cancelled_frees_its_slot_and_changes_nobody(engine):
    long = ask(B, max_tokens=30)
    alone = await one(engine, long)
    running = asyncio.create_task(one(engine, long))
    for _ in range(5):
        deltas = engine.generate([ask(A, "On and on.", max_tokens=500)])
        await anext(deltas)
        await deltas.aclose()
    assert difference(await running, alone) < CLOSE
    await until(lambda: stats(engine).active_rows == 0)
    assert stats(engine).waiting_rows == 0


async def test_a_row_that_is_cancelled_while_it_waits_never_runs(engine, turns):
    turns.only(5)
    running = asyncio.create_task(complete(engine, [ask(A, max_tokens=60)] * 4))
    await turns.taken()
    waiting = asyncio.create_task(one(engine, ask(B)))
    await until(lambda: stats(engine).waiting_rows == 1)
    waiting.cancel()
    await until(lambda: stats(engine).waiting_rows == 0)
    assert stats(engine).active_rows == 4
    running.cancel()
    await until(lambda: stats(engine).active_rows == 0)


async def test_a_short_prompt_is_not_behind_all_of_a_long_one(pieces):
    requests = [ask(A, "A long question. " * 20), ask(B, "Short?", max_tokens=4)]
    alone = [await one(pieces, request) for request in requests]
    async with aclosing(pieces.generate(requests)) as deltas:
        seen = [delta async for delta in deltas]
    ended = next(at for at, delta in enumerate(seen) if delta.row == 1 and delta.finish_reason)
    assert all(delta.row == 1 for delta in seen[:ended])
    await assert_same(seen, alone)


async def test_rows_that_run_go_on_while_a_long_prompt_is_computed(pieces):
    requests = [ask(B, "Short?", max_tokens=30), ask(A, "A long question. " * 20)]
    alone = [await one(pieces, request) for request in requests]
    async with aclosing(pieces.generate(requests)) as deltas:
        seen = [delta async for delta in deltas]
    before = next(at for at, delta in enumerate(seen) if delta.row == 1)
    assert before > 10
    await assert_same(seen, alone)


async def assert_same(seen: list[Delta], alone: list[Completion]) -> None:
    """The rows whose deltas were ``seen`` are as they are alone."""

    async def replay():
        for delta in seen:
            yield delta

    for here, there in zip(await collect(replay(), len(alone)), alone, strict=True):
        assert difference(here, there) < CLOSE


async def test_a_seed_repeats_whatever_else_is_in_the_batch(engine):
    def sampled(seed: int | None, **more):
        return ask(A, temperature=0.9, top_p=0.95, seed=seed, max_tokens=10, **more)

    alone = await one(engine, sampled(7))
    others = [sampled(8), ask(B), sampled(None)]
    together = await complete(engine, [sampled(7), *others])
    assert tokens(together[0]) == tokens(alone)
    assert tokens(together[1]) != tokens(alone)
    assert tokens(await one(engine, sampled(-(2**70)))) == tokens(
        await one(engine, sampled(-(2**70)))
    )


async def test_a_nucleus_of_nothing_is_the_likeliest_token(engine):
    greedy = await one(engine, ask(A))
    assert tokens(await one(engine, ask(A, temperature=1.0, top_p=0.0))) == tokens(greedy)
    assert tokens(await one(engine, ask(A, temperature=1.0, top_p=1e-6))) == tokens(greedy)


async def test_a_schema_is_kept_beside_rows_without_one(engine: MlxEngine):
    schema = {
        "type": "object",
        "properties": {"vote": {"enum": ["KEEP", "REFUSE"]}},
        "required": ["vote"],
        "additionalProperties": False,
    }
    free = ask(B)
    alone = await one(engine, free)
    bound = ask(A, temperature=1.0, seed=1, max_tokens=120, json_schema=schema)
    answer, beside = await complete(engine, [bound, free])
    assert answer.finish_reason == "stop"
    assert '"KEEP"' in answer.text or '"REFUSE"' in answer.text
    assert difference(beside, alone) < CLOSE
