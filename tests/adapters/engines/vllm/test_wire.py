from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, TokenLogprob, Usage, collect
from adapters.engines.vllm.wire import body_of, deltas_of
from kiki.errors import EngineUnavailableError


def piece(finish: str | None = None, **delta: str) -> dict[str, Any]:
    return {"choices": [{"delta": delta, "finish_reason": finish}]}


async def whole(*chunks: dict[str, Any]):
    async def stream() -> AsyncIterator[list[dict[str, Any]]]:
        for chunk in chunks:
            yield [chunk]

    return (await collect(deltas_of(0, stream()), 1))[0]


async def test_reasoning_comes_back_between_its_tags():
    answer = await whole(
        piece(reasoning="First "),
        piece(reasoning="think."),
        piece(content="Then "),
        piece("stop", content="answer."),
    )
    assert answer.text == "<think>First think.</think>Then answer."


async def test_reasoning_that_was_cut_off_stays_open_as_the_model_left_it():
    answer = await whole(piece("length", reasoning="Still think"))
    assert answer.text == "<think>Still think"
    assert answer.finish_reason == "length"


async def test_usage_and_logprobs_are_read():
    entry = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}
    chunk = piece("stop", content="a")
    chunk["choices"][0]["logprobs"] = {"content": [entry]}
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    answer = await whole(chunk, {"choices": [], "usage": usage})
    assert answer.usage == Usage(7, 1, 4)
    assert answer.logprobs == (TokenLogprob("a", -0.5, (("b", -1.0),)),)


@pytest.mark.parametrize("finish", [None, "abort"])
async def test_a_stream_without_a_proper_end_is_an_error(finish):
    with pytest.raises(EngineUnavailableError, match="in the middle of the answer"):
        await whole(piece(finish, content="Half an"))


def test_a_schema_and_logprobs_are_asked_for_as_openai_does():
    sampling = Sampling(json_schema={"type": "object"}, top_logprobs=3)
    body = body_of(GenerateRequest((Message("user", "Hi"),), sampling=sampling), 4096)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]


async def test_chunks_that_came_together_are_one_delta():
    async def stream() -> AsyncIterator[list[dict[str, Any]]]:
        yield [piece(content="Two "), piece(content="in "), piece(content="one")]
        yield [piece(content=", then "), piece("stop", content="more.")]

    deltas = [delta async for delta in deltas_of(0, stream())]
    assert [delta.text for delta in deltas] == ["Two in one", ", then more.", ""]
    assert deltas[-1].finish_reason == "stop"
