"""The OpenAI wire format that engines behind HTTP speak: requests, streamed chunks, errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from adapters.engines.base import Message, Sampling, TokenLogprob, Usage


def message_fields(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """The request's sampling fields; what the caller did not choose stays out of the request."""
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # A server's own defaults cut the distribution; OpenAI's parameters alone must decide.
        "top_k": 0,
        "min_p": 0.0,
    }
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": dict(sampling.json_schema)}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if sampling.top_logprobs:
        fields |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return fields


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a server-sent stream, without its ``[DONE]``.

    Lines end at LF alone: a string in the JSON may hold the other signs that end one in Unicode.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data: ").strip()
            if line.startswith(b"data: ") and data != b"[DONE]":
                yield json.loads(data)


def usage_of(usage: dict[str, Any]) -> Usage:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)


def logprobs_of(logprobs: dict[str, Any] | None) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a choice, () where it has none."""
    if not logprobs:
        return ()
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple((top["token"], top["logprob"]) for top in entry.get("top_logprobs", ())),
        )
        for entry in logprobs["content"]
    )


def error_of(body: bytes) -> dict[str, Any]:
    """The ``error`` object of a refusal; a body without one becomes its message."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": body[:200].decode(errors="replace")}
    return error if isinstance(error, dict) else {"message": str(error)}
