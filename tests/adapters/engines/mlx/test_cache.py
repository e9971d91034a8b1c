"""A later turn takes the state of the earlier one; no state crosses mixes or versions."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache

from adapters.engines.base import Message
from adapters.engines.mlx import MlxConfig
from adapters.engines.mlx.cache import PrefixCache
from adapters.mix import BASE, Mix
from tests.adapters.engines.mlx.serving import (
    HELLO,
    ask,
    difference,
    make_adapters,
    one,
    started,
    stats,
    tokens,
    write_base,
)

A, B = Mix.single("a"), Mix.single("b")
BARE = (BASE, 1.0)
MIXES = [BASE, A, B, Mix.of({"a": 0.5}), Mix.of({"a": 0.5, "b": 0.5})]
# The same sums in pieces of other lengths, in float32.
CLOSE = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlx")


@pytest.fixture(scope="module")
def base(folder):
    return write_base(folder, None)


@pytest.fixture(scope="module")
def adapters(folder):
    return make_adapters(folder, "a", "b")


@pytest.fixture(scope="module")
async def uncached(base, adapters):
    async with started(base, adapters, prefix_cache_entries=0) as engine:
        yield engine


@pytest.fixture
async def engine(base, adapters):
    async with started(base, adapters) as engine:
        yield engine


async def test_a_conversation_reuses_its_turns_and_answers_the_same(engine, uncached):
    messages: tuple[Message, ...] = (Message("user", "Tell me a story, and take your time."),)
    for turn in range(3):
        request = replace(ask(A), messages=messages)
        answer, plain = await one(engine, request), await one(uncached, request)
        assert difference(answer, plain) < CLOSE
        assert plain.usage.cached_tokens == 0
        # What the earlier turns' prompts held, without the line that opens an answer.
        assert (answer.usage.cached_tokens > 0) == (turn > 0)
        answered = Message("assistant", answer.text)
        messages = (*messages, answered, Message("user", "And then?"))
    assert stats(engine).prefix_hits == 2
    assert stats(engine).prefix_tokens > 0


async def test_no_mix_answers_from_anothers_state(engine, uncached):
    """Each mix follows each other one, over one conversation that all of them share."""
    expected = {mix: await one(uncached, ask(mix, before=HELLO)) for mix in MIXES}
    assert len({tuple(tokens(answer)) for answer in expected.values()}) == len(MIXES)
    for first in MIXES:
        for then in MIXES:
            for mix in (first, then):
                found = await one(engine, ask(mix, before=HELLO))
                assert difference(found, expected[mix]) < CLOSE
    assert stats(engine).prefix_hits > len(MIXES) ** 2


async def test_a_new_version_of_an_adapter_takes_nothing_of_the_old_one(
    engine, adapters, uncached, tmp_path
):
    (other,) = make_adapters(tmp_path, "z")
    request = ask(A, before=HELLO)
    old = await one(engine, request)
    assert (await one(engine, request)).usage.cached_tokens > 0
    await engine.set_adapters([replace(other, name="a"), adapters[1]])
    new = await one(engine, request)
    assert new.usage.cached_tokens == 0
    assert tokens(new) != tokens(old)
    await engine.set_adapters(adapters)
    back = await one(engine, request)
    assert back.usage.cached_tokens > 0
    assert difference(back, await one(uncached, request)) < CLOSE


async def test_a_first_turn_is_computed_whole_and_repeats_bit_for_bit(engine):
    first = await one(engine, ask(A))
    for mix in (A, BASE, B):
        await one(engine, ask(mix, before=HELLO))
    again = await one(engine, ask(A))
    assert again.usage.cached_tokens == 0
    assert again.logprobs == first.logprobs


async def test_a_long_prompt_is_the_same_whole_and_in_pieces(base, adapters, uncached):
    request = ask(B, "A long question. " * 20)
    async with started(base, adapters, prefill_tokens=7) as pieces:
        assert difference(await one(pieces, request), await one(uncached, request)) < CLOSE


async def test_where_a_turn_was_stopped_by_a_string_its_state_serves_too(engine, uncached):
    whole = await one(engine, ask(A, max_tokens=20))
    stop = whole.text[8:12]
    stopped = await one(engine, ask(A, max_tokens=20, stop=(stop,)))
    assert stopped.text == whole.text[: whole.text.index(stop)]
    before = (*ask().messages, Message("assistant", stopped.text))
    request = ask(A, "Go on.", before=before)
    answer = await one(engine, request)
    assert answer.usage.cached_tokens > 0
    assert difference(answer, await one(uncached, request)) < CLOSE


@pytest.mark.parametrize("bits", [8, 4])
async def test_with_a_quantised_kv_cache_rows_run_one_by_one(base, adapters, uncached, turns, bits):
    async with started(base, adapters, kv_bits=bits) as engine:
        assert engine.capabilities.slots == 1
        rows = [ask(A, before=HELLO), ask(B), ask(A, before=HELLO)]
        answers = await asyncio.gather(*(one(engine, row) for row in rows))
        assert turns.most_active == 1
        assert answers[2].usage.cached_tokens > 0
        for answer, row in zip(answers, rows, strict=True):
            exact = await one(uncached, row)
            # Rounded keys and values move the numbers, by less the more bits they have.
            moved = abs(answer.logprobs[0].logprob - exact.logprobs[0].logprob)
            assert 0 < moved < (0.05 if bits == 8 else 0.8)


def state(length: int) -> list[KVCache]:
    cache = KVCache()
    cache.update_and_fetch(mx.ones((1, 1, length, 4)), mx.ones((1, 1, length, 4)))
    return [cache]


def test_a_state_of_plain_attention_is_cut_to_what_two_prompts_share():
    cache = PrefixCache(MlxConfig())
    cache.keep_answer((A, 1.0), list(range(10)), state(10))
    found = cache.find((A, 1.0), [0, 1, 2, 3, 77, 78])
    assert found is not None
    assert (found.tokens, found.cache[0].offset) == (4, 4)
    assert cache.find((B, 1.0), [0, 1, 2, 3, 77, 78]) is None
    assert cache.find((A, 2.0), [0, 1, 2, 3, 77, 78]) is None


def test_the_last_token_of_a_prompt_is_never_taken_from_the_cache():
    cache = PrefixCache(MlxConfig())
    cache.keep_answer(BARE, [1, 2, 3], state(3))
    found = cache.find(BARE, [1, 2, 3])
    assert found is not None
    assert found.tokens < 3
    assert cache.find(BARE, [1]) is None


def test_what_is_found_is_the_callers_own():
    cache = PrefixCache(MlxConfig())
    cache.keep_answer(BARE, [1, 2, 3], state(3))
    for _ in range(2):
        found = cache.find(BARE, [1, 2, 3, 4, 5])
        assert found is not None
        assert found.cache[0].offset == 3
        found.cache[0].update_and_fetch(mx.zeros((1, 1, 9, 4)), mx.zeros((1, 1, 9, 4)))


def test_entries_and_bytes_are_bounded():
    few = PrefixCache(MlxConfig(prefix_cache_entries=2))
    for start in range(5):
        few.keep_answer(BARE, [start, 1, 2], state(3))
    assert len(few) == 2
    one_state = few.nbytes // 2
    small = PrefixCache(MlxConfig(prefix_cache_bytes=one_state))
    for start in range(5):
        small.keep_answer(BARE, [start, 1, 2], state(3))
    assert (len(small), small.nbytes) == (1, one_state)
    none = PrefixCache(MlxConfig(prefix_cache_entries=0))
    none.keep_answer(BARE, [1, 2, 3], state(3))
    assert none.find(BARE, [1, 2, 3, 4]) is None
