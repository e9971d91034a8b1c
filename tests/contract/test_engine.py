"""What every engine keeps, on a real model with real adapters."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import aclosing

import pytest

from adapters.engines.base import (
    Completion,
    Engine,
    GenerateRequest,
    Message,
    Sampling,
    collect,
    complete,
)
from adapters.mix import BASE, Mix
from kiki.errors import EngineUnavailableError, PromptTooLongError, UnknownAdapterError
from tests.contract.reference import POSITIONS, largest_difference, largest_odds_difference
from tests.contract.shipped import as_mlx, copied, damaged, shipped
from tests.waiting import until

PROMPT = "How do I count the lines of a file?"
SHELL, PYTHON = Mix.single("shell"), Mix.single("python")
PAIR = Mix.of({"shell": 0.7, "python": 0.3})
FOUR = Mix.of({"shell": 0.5, "python": -0.3, "sql": 0.4, "cpp": 0.2})


def ask(mix: Mix, prompt: str = PROMPT, *, history: bool = False, **sampling) -> GenerateRequest:
    messages = [Message("user", prompt)]
    if history:
        messages = [Message("user", "Hello."), Message("assistant", "Hi!"), *messages]
    defaults = {"max_tokens": 6, "temperature": 0.0, "top_logprobs": 5}
    return GenerateRequest(tuple(messages), mix, Sampling(**defaults | sampling))


async def one(engine: Engine, request: GenerateRequest) -> Completion:
    return (await complete(engine, [request]))[0]


def assert_close(a: Completion, b: Completion, tolerance: float) -> None:
    """The same text, and the same log-probabilities within ``tolerance``."""
    assert a.text == b.text
    for here, there in zip(a.logprobs, b.logprobs, strict=True):
        assert here.logprob == pytest.approx(there.logprob, abs=tolerance)
        ours, theirs = dict(here.top), dict(there.top)
        shared = ours.keys() & theirs.keys()
        assert len(shared) >= 4  # a near tie may swap the fifth place
        for token in shared:
            assert ours[token] == pytest.approx(theirs[token], abs=tolerance)


def first_logprobs(completion: Completion) -> dict[str, float]:
    return dict(completion.logprobs[0].top)


async def test_base_is_the_same_before_and_after_adapter_traffic(engine):
    before = await one(engine, ask(BASE))
    for name in engine.adapters:
        await one(engine, ask(Mix.single(name), max_tokens=2))
    after = await one(engine, ask(BASE))
    assert after.text == before.text
    assert after.logprobs == before.logprobs


@pytest.mark.parametrize("mix", [BASE, SHELL, PAIR, FOUR], ids=str)
async def test_a_mix_is_the_base_with_the_weighted_sum_of_its_adapters(
    engine, traits, reference, mix
):
    if engine.fitting(mix) != mix:
        pytest.skip("more adapters than this engine holds in one mix")
    request = ask(mix, max_tokens=POSITIONS)
    answer = await one(engine, request)
    assert answer.usage.prompt_tokens == len(reference.prompt(request.messages))
    expected = reference.logprobs(request.messages, mix)
    assert len(answer.logprobs) == POSITIONS
    assert largest_odds_difference(answer.logprobs, expected) <= 1e-4
    assert largest_difference(answer.logprobs, expected) <= traits.reference_tolerance


async def test_each_adapter_answers_in_its_own_way(engine):
    answers = await complete(engine, [ask(mix, max_tokens=12) for mix in (BASE, SHELL, PYTHON)])
    assert len({answer.text for answer in answers}) == 3


async def test_no_cache_crosses_mixes_whichever_comes_first(engine, traits, reference):
    """Each of three mixes follows each other one, and itself, over one conversation."""
    order = [BASE, SHELL, PAIR, BASE, PAIR, SHELL, BASE, BASE, SHELL, SHELL]
    for mix in order:
        request = ask(mix, history=True, max_tokens=1)
        answer = await one(engine, request)
        expected = reference.logprobs(request.messages, mix)
        difference = largest_difference(answer.logprobs, expected)
        assert difference <= traits.reference_tolerance + traits.batch_tolerance


async def test_a_mix_of_one_adapter_at_full_weight_is_that_adapter(engine):
    alone = await one(engine, ask(SHELL))
    mixed = await one(engine, ask(Mix.of({"shell": 1.0, "python": 0.0})))
    assert mixed.logprobs == alone.logprobs


async def test_weights_move_the_answer_between_base_and_adapter(engine):
    base = first_logprobs(await one(engine, ask(BASE, max_tokens=1)))
    tiny = first_logprobs(await one(engine, ask(Mix.of({"shell": 0.01}), max_tokens=1)))
    full = first_logprobs(await one(engine, ask(SHELL, max_tokens=1)))
    likeliest = max(base, key=lambda token: base[token])
    # What is not among the five likeliest is below them all.
    moved = base[likeliest] - full.get(likeliest, min(full.values()))
    assert 0 < abs(base[likeliest] - tiny[likeliest]) < 0.1
    assert moved > 2


async def test_different_mixes_at_once_equal_their_single_runs(engine, traits):
    mixes = [BASE, SHELL, PYTHON, Mix.of({"shell": 0.5, "python": 0.5})]
    singles = [await one(engine, ask(mix)) for mix in mixes]
    together = await complete(engine, [ask(mix) for mix in mixes])
    for single, batched in zip(singles, together, strict=True):
        assert_close(batched, single, traits.batch_tolerance)


async def test_rows_of_one_mix_at_once_equal_their_single_runs(engine, traits):
    prompts = [PROMPT, "What is a pipe?", "List my files."]
    singles = [await one(engine, ask(SHELL, prompt)) for prompt in prompts]
    together = await complete(engine, [ask(SHELL, prompt) for prompt in prompts])
    for single, batched in zip(singles, together, strict=True):
        assert_close(batched, single, traits.batch_tolerance)


@pytest.mark.parametrize("joining", [SHELL, PYTHON], ids=str)
async def test_who_joins_in_mid_flight_changes_nobody(engine, traits, joining):
    long, short = ask(SHELL, max_tokens=16), ask(joining, "What is a pipe?")
    alone = [await one(engine, request) for request in (long, short)]
    async with aclosing(engine.generate([long])) as deltas:
        first = await anext(deltas)
        joined = asyncio.create_task(one(engine, short))
        rest = [delta async for delta in deltas]
    assert_close(await joined, alone[1], traits.batch_tolerance)

    async def replay():
        for delta in [first, *rest]:
            yield delta

    assert_close((await collect(replay(), 1))[0], alone[0], traits.batch_tolerance)


async def test_a_seed_repeats_and_another_differs(engine):
    def sampled(seed: int) -> GenerateRequest:
        return ask(BASE, "Tell me a story.", temperature=1.0, seed=seed, max_tokens=10)

    first = await one(engine, sampled(1))
    assert (await one(engine, sampled(1))).text == first.text
    beside, other = await complete(engine, [sampled(1), sampled(2)])
    assert beside.text == first.text
    assert other.text != first.text


async def test_the_text_comes_in_pieces_and_ends_with_reason_and_usage(engine):
    async with aclosing(engine.generate([ask(BASE, max_tokens=8)])) as deltas:
        seen = [delta async for delta in deltas]
    assert len([delta for delta in seen if delta.text]) > 3
    assert seen[-1].finish_reason == "length"
    assert seen[-1].usage.completion_tokens == 8
    assert all(delta.finish_reason is None for delta in seen[:-1])


async def test_logprobs_are_those_of_the_tokens_that_came(engine):
    answer = await one(engine, ask(SHELL))
    assert "".join(entry.token for entry in answer.logprobs) == answer.text
    assert len(answer.logprobs) == answer.usage.completion_tokens
    for entry in answer.logprobs:
        assert len(entry.top) == 5
        assert entry.top[0] == (entry.token, entry.logprob)  # greedy
        assert list(entry.top) == sorted(entry.top, key=lambda pair: -pair[1])
        assert sum(math.exp(logprob) for _, logprob in entry.top) <= 1 + 1e-6


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine):
    whole = await one(engine, ask(BASE, "Count from one to five.", max_tokens=12))
    word = whole.text.split()[2]
    stopped = await one(engine, ask(BASE, "Count from one to five.", max_tokens=12, stop=(word,)))
    assert stopped.finish_reason == "stop"
    assert word not in stopped.text
    assert whole.text.startswith(stopped.text)


async def test_a_stop_string_that_spans_tokens_is_found_and_no_part_of_it_is_sent(engine):
    whole = await one(engine, ask(BASE, "Count from one to five.", max_tokens=12))
    tokens = [entry.token for entry in whole.logprobs]
    stop = next(
        tokens[at][-1] + tokens[at + 1] + tokens[at + 2][:1]
        for at in range(2, len(tokens) - 2)
        if tokens[at][-1].isalnum()
    )
    asked = ask(BASE, "Count from one to five.", max_tokens=12, stop=(stop,))
    async with aclosing(engine.generate([asked])) as deltas:
        seen = [delta async for delta in deltas]
    assert seen[-1].finish_reason == "stop"
    assert "".join(delta.text for delta in seen) == whole.text[: whole.text.index(stop)]


async def test_a_schema_is_kept_by_every_mix(engine):
    if not engine.capabilities.json_schema:
        pytest.skip("this engine says that it can't keep to a schema")
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
    before = engine.last_delta
    with pytest.raises(UnknownAdapterError, match="shel"):
        await complete(engine, [ask(BASE), ask(Mix.single("shel"))])
    assert engine.last_delta == before


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(engine):
    size = engine.capabilities.context_tokens
    with pytest.raises(PromptTooLongError, match=rf"\d+ tokens; the context holds {size}"):
        await one(engine, ask(BASE, "word " * 3 * size))


async def test_a_cancelled_answer_frees_its_slot(engine):
    """Else the last one would wait until a slot's answer, which is as long as its own, ends."""
    slots = engine.capabilities.slots
    long = ask(BASE, "Write a very long story.", max_tokens=300)
    running = asyncio.create_task(one(engine, long))
    for _ in range(slots):
        async with aclosing(engine.generate([long])) as cancelled:
            await anext(cancelled)
    await complete(engine, [ask(BASE, max_tokens=2)] * (slots - 1))
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_who_stops_reading_keeps_nobody_waiting(engine):
    async with aclosing(engine.generate([ask(SHELL, max_tokens=8)])) as unread:
        await anext(unread)
        async with asyncio.timeout(120):  # what would else wait for ever
            await complete(engine, [ask(PYTHON, max_tokens=2)])
        assert [delta async for delta in unread][-1].finish_reason == "length"


async def test_it_is_ready_when_it_can_generate(engine):
    assert engine.state == "ready"
    assert await engine.ready()


async def test_adapters_come_and_go_and_rows_in_flight_finish(changing, traits):
    engine = changing
    alone = await one(engine, ask(PYTHON, max_tokens=16))
    async with aclosing(engine.generate([ask(PYTHON, max_tokens=16)])) as deltas:
        first = await anext(deltas)
        assert await engine.set_adapters(shipped("shell")) == ()
        assert engine.adapters == ("shell",)
        with pytest.raises(UnknownAdapterError):
            await one(engine, ask(PYTHON))
        text = first.text + "".join([delta.text async for delta in deltas])
    assert text == alone.text
    assert await engine.set_adapters(shipped("python", "shell")) == ()
    assert_close(await one(engine, ask(PYTHON, max_tokens=16)), alone, traits.batch_tolerance)


async def test_new_content_under_an_old_name_is_a_new_adapter(changing, traits, tmp_path):
    """Over a conversation, whose prefix was cached under the old content."""
    twice = await one(changing, ask(Mix.of({"shell": 2.0}), history=True, max_tokens=2))
    once = await one(changing, ask(SHELL, history=True, max_tokens=2))
    assert first_logprobs(once) != first_logprobs(twice)
    assert await changing.set_adapters([copied("shell", tmp_path, alpha=32)]) == ()
    found = await one(changing, ask(SHELL, history=True, max_tokens=2))
    assert_close(found, twice, 2 * traits.batch_tolerance)


async def test_an_adapter_that_cannot_be_read_is_refused_and_the_rest_serve(changing, tmp_path):
    expected = await one(changing, ask(SHELL))
    (refusal,) = await changing.set_adapters([damaged("sql", tmp_path), *shipped("shell")])
    assert refusal.name == "sql"
    assert str(tmp_path) in refusal.reason
    assert changing.adapters == ("shell",)
    assert (await one(changing, ask(SHELL))).text == expected.text


async def test_an_adapter_is_the_same_in_the_form_of_mlx(changing, traits, tmp_path):
    expected = await one(changing, ask(SHELL))
    assert await changing.set_adapters([as_mlx("shell", tmp_path)]) == ()
    assert_close(await one(changing, ask(SHELL)), expected, traits.batch_tolerance)


async def test_an_engine_whose_process_dies_comes_back_with_its_adapters(engine, traits):
    if traits.crash is None:
        pytest.skip("this engine lives in the caller's process and falls only with it")
    before = await one(engine, ask(SHELL))
    await traits.crash(engine)
    assert not await engine.ready()
    with pytest.raises(EngineUnavailableError) as caught:
        await one(engine, ask(SHELL))
    assert caught.value.retry_after >= 1
    await until(lambda: engine.state == "ready", seconds=600)
    assert (await one(engine, ask(SHELL))).text == before.text
