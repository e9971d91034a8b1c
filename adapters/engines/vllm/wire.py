"""vLLM's side of the OpenAI wire format: the request it takes, the deltas it streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from adapters.engines.base import CallPiece, Delta, GenerateRequest, TokenLogprob, Usage
from adapters.engines.openai_wire import (
    calls_of,
    finish_of,
    logprobs_of,
    prompt_fields,
    sampling_fields,
    usage_of,
)
from kiki.errors import EngineUnavailableError

OPEN, CLOSE = "<think>", "</think>"


def body_of(request: GenerateRequest, context_tokens: int) -> dict[str, Any]:
    """The request without its ``model``."""
    body: dict[str, Any] = {
        **prompt_fields(request),
        "stream": True,
        "stream_options": {"include_usage": True},
        # The model's generation_config.json would else decide.
        "repetition_penalty": 1.0,
        **sampling_fields(request.sampling),
    }
    # vLLM shortens the answer to what the prompt leaves, but refuses a limit above the context.
    body["max_tokens"] = min(request.sampling.max_tokens, context_tokens)
    if request.prompt is not None and "top_logprobs" in body:
        body["logprobs"] = body.pop("top_logprobs")
    return body


async def deltas_of(
    row: int, batches: AsyncIterator[list[dict[str, Any]]]
) -> AsyncGenerator[Delta, None]:
    """The row's deltas, one for the chunks that came together; the last carries reason and usage.

    What vLLM's parser took out as ``reasoning`` is put back between ``<think>`` tags, as the
    model wrote it. Raises EngineUnavailableError when the stream ends without a reason.
    """
    finish: str | None = None
    usage = Usage()
    thinking = False
    async for chunks in batches:
        text = ""
        logprobs: list[TokenLogprob] = []
        calls: list[CallPiece] = []
        for chunk in chunks:
            if chunk.get("usage"):
                usage = usage_of(chunk["usage"])
            for choice in chunk["choices"]:
                finish = choice.get("finish_reason") or finish
                delta = choice.get("delta") or {}
                content = delta.get("content") or choice.get("text") or ""
                if reasoning := delta.get("reasoning"):
                    text += reasoning if thinking else OPEN + reasoning
                    thinking = True
                if content:
                    text += CLOSE + content if thinking else content
                    thinking = False
                if delta.get("tool_calls"):
                    calls += calls_of(delta)
                if choice.get("logprobs"):
                    logprobs += logprobs_of(choice["logprobs"])
        if text or logprobs or calls:
            yield Delta(row, text, tuple(logprobs), calls=tuple(calls))
    if finish is None or finish == "abort":
        raise EngineUnavailableError("vLLM ended in the middle of the answer.")
    yield Delta(row, finish_reason=finish_of(finish), usage=usage)
