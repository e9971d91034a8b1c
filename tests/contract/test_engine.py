"""What every engine keeps, on a real model with real adapters."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from adapters.engines.base import Engine, GenerateRequest, Message, Sampling, complete
from adapters.mix import BASE, Mix
from kiki.errors import PromptTooLongError, UnknownAdapterError

PROMPT = "How do I count the lines of a file?"
SHELL, PYTHON = Mix.single("shell"), Mix.single("python")
# llama.cpp sums batches in other orders on each shape; single precision leaves this much.
BATCH_TOLERANCE = 0.02


def ask(mix: Mix, prompt: str = PROMPT, *, history: bool = False, **sampling) -> GenerateRequest:
    messages = [Message("user", prompt)]
    if history:
        messages = [Message("user", "Hello."), Message("assistant", "Hi!"), *messages]
    defaults = {"max_tokens": 24, "temperature": 0.0, "top_logprobs": 5}
    return GenerateRequest(tuple(messages), mix, Sampling(**defaults | sampling))


async def one(engine: Engine, request: GenerateRequest):
    return (await complete(engine, [request]))[0]


def assert_close(a: dict[str, float], b: dict[str, float]) -> None:
    """The same likeliest token, and the same numbers; a near tie may swap the fifth place."""
    assert max(a, key=lambda token: a[token]) == max(b, key=lambda token: b[token])
    shared = a.keys() & b.keys()
    assert len(shared) >= 4
    for token in shared:
        assert a[token] == pytest.approx(b[token], abs=BATCH_TOLERANCE)


def first_logprobs(completion) -> dict[str, float]:
    return dict(completion.logprobs[0].top)


async def test_base_is_the_same_before_and_after_adapter_traffic(engine):
    before = await one(engine, ask(BASE))
    for name in engine.adapters:
        await one(engine, ask(Mix.single(name)))
    after = await one(engine, ask(BASE))
    assert after.text == before.text
    assert after.logprobs == before.logprobs


async def test_each_adapter_answers_in_its_own_way(engine):
    texts = [(await one(engine, ask(mix, max_tokens=40))).text for mix in (BASE, SHELL, PYTHON)]
    assert len(set(texts)) == 3


async def test_no_cache_crosses_mixes_within_a_conversation(engine):
    clean = await one(engine, ask(BASE, history=True))
    await one(engine, ask(SHELL, history=True))
    after = await one(engine, ask(BASE, history=True))
    assert_close(first_logprobs(after), first_logprobs(clean))


async def test_a_mix_of_one_adapter_at_full_weight_is_that_adapter(engine):
    alone = await one(engine, ask(SHELL))
    mixed = await one(engine, ask(Mix.of({"shell": 1.0, "python": 0.0})))
    assert mixed.logprobs == alone.logprobs


async def test_weights_move_the_answer_between_base_and_adapter(engine):
    base = first_logprobs(await one(engine, ask(BASE)))
    tiny = first_logprobs(await one(engine, ask(Mix.of({"shell": 0.01}))))
    full = first_logprobs(await one(engine, ask(SHELL)))
    likeliest = max(base, key=lambda token: base[token])
    # What is not among the five likeliest is below them all.
    moved = base[likeliest] - full.get(likeliest, min(full.values()))
    # A 4-bit model rounds its activations: any change, however small, moves it by some tenths.
    assert abs(base[likeliest] - tiny[likeliest]) < 0.5
    assert moved > 2


async def test_different_mixes_at_once_equal_their_single_runs(engine):
    mixes = [BASE, SHELL, PYTHON, Mix.of({"shell": 0.5, "python": 0.5})]
    singles = [await one(engine, ask(mix)) for mix in mixes]
    together = await complete(engine, [ask(mix) for mix in mixes])
    for single, batched in zip(singles, together, strict=True):
        assert_close(first_logprobs(batched), first_logprobs(single))


async def test_a_seed_repeats_and_another_differs(engine):
    def sampled(seed: int) -> GenerateRequest:
        return ask(BASE, "Tell me a story.", temperature=1.0, seed=seed, max_tokens=16)

    assert (await one(engine, sampled(1))).text == (await one(engine, sampled(1))).text
    assert (await one(engine, sampled(1))).text != (await one(engine, sampled(2))).text


async def test_the_text_comes_in_pieces_and_ends_with_reason_and_usage(engine):
    async with aclosing(engine.generate([ask(BASE, max_tokens=8)])) as deltas:
        seen = [delta async for delta in deltas]
    assert len([delta for delta in seen if delta.text]) > 3
    assert seen[-1].finish_reason == "length"
    assert seen[-1].usage.completion_tokens == 8
    assert all(delta.finish_reason is None for delta in seen[:-1])


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine):
    whole = await one(engine, ask(BASE, "Count from one to five.", max_tokens=40))
    word = whole.text.split()[2]
    stopped = await one(engine, ask(BASE, "Count from one to five.", max_tokens=40, stop=(word,)))
    assert stopped.finish_reason == "stop"
    assert word not in stopped.text
    assert whole.text.startswith(stopped.text)


async def test_a_schema_is_kept_by_every_mix(engine):
    schema = {
        "type": "object",
        "properties": {"vote": {"enum": ["KEEP", "REFUSE"]}},
        "required": ["vote"],
        "additionalProperties": False,
    }
    for mix in (BASE, SHELL):
        answer = await one(engine, ask(mix, json_schema=schema, top_logprobs=0, max_tokens=60))
        assert json.loads(answer.text)["vote"] in ("KEEP", "REFUSE")


async def test_an_unknown_adapter_is_refused_before_anything_runs(engine):
    with pytest.raises(UnknownAdapterError, match="shel"):
        await one(engine, ask(Mix.single("shel")))


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(engine):
    with pytest.raises(PromptTooLongError, match=r"tokens; the context holds 1024"):
        await one(engine, ask(BASE, "word " * 3000))


async def test_a_cancelled_answer_frees_its_slot(engine):
    slots = engine.capabilities.slots
    for _ in range(slots + 1):
        long = ask(BASE, "Write a very long story.", max_tokens=900, temperature=1.0)
        async with aclosing(engine.generate([long])) as deltas:
            async for _ in deltas:
                break
    async with asyncio.timeout(20):
        await complete(engine, [ask(BASE, max_tokens=2)] * slots)
