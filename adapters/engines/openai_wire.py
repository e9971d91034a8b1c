"""The OpenAI wire format that engines behind HTTP speak: requests, streamed chunks, errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from adapters.engines.base import (
    CallPiece,
    FinishReason,
    GenerateRequest,
    Message,
    Sampling,
    TokenLogprob,
    ToolCall,
    Tools,
    Usage,
)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def path_of(request: GenerateRequest) -> str:
    """Where a request goes: a prompt that is taken as it is has an endpoint of its own."""
    return CHAT if request.prompt is None else COMPLETIONS


def prompt_fields(request: GenerateRequest) -> dict[str, Any]:
    """What the model is to answer, with its tools and the template's variables."""
    if request.prompt is not None:
        return {"prompt": request.prompt}
    fields: dict[str, Any] = {"messages": message_fields(request.messages)}
    if request.tools is not None:
        fields |= tool_fields(request.tools)
    if request.variables:
        fields["chat_template_kwargs"] = dict(request.variables)
    return fields


_decode = json.JSONDecoder().decode


def message_fields(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_message(message) for message in messages]


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def tool_fields(tools: Tools) -> dict[str, Any]:
    choice: object = "required" if tools.required else "auto"
    if tools.only is not None:
        choice = {"type": "function", "function": {"name": tools.only}}
    return {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                    "strict": tool.strict,
                },
            }
            for tool in tools.tools
        ],
        "tool_choice": choice,
        "parallel_tool_calls": tools.parallel,
    }


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
    if sampling.logprobs or sampling.top_logprobs:
        # llama.cpp reads 0 for "as many as usual".
        fields |= {"logprobs": True, "top_logprobs": max(sampling.top_logprobs, 1)}
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.presence_penalty:
        fields["presence_penalty"] = sampling.presence_penalty
    if sampling.frequency_penalty:
        fields["frequency_penalty"] = sampling.frequency_penalty
    return fields


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a server-sent stream, without its ``[DONE]``."""
    async for together in batches(chunks):
        for event in together:
            yield event


async def batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[dict[str, Any]]]:
    """The same, with those together that came together.

    Lines end at LF alone: a string in the JSON may hold the other signs that end one in Unicode.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        found = [
            _decode(line[6:].decode())
            for line in lines
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]")
        ]
        if found:
            yield found


def usage_of(usage: dict[str, Any]) -> Usage:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)


def calls_of(delta: dict[str, Any]) -> tuple[CallPiece, ...]:
    """The pieces of tool calls in a delta, () where it has none."""
    return tuple(
        CallPiece(
            call["index"],
            call.get("function", {}).get("arguments") or "",
            call.get("id"),
            call.get("function", {}).get("name"),
        )
        for call in delta.get("tool_calls") or ()
    )


def finish_of(reason: str) -> FinishReason:
    """A server's word for why it stopped, as one of ours."""
    if reason in ("length", "tool_calls"):
        return reason  # type: ignore[return-value]
    return "stop"


def logprobs_of(logprobs: dict[str, Any] | None) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a choice, () where it has none.

    vLLM's completions still list them as OpenAI's first API did.
    """
    if not logprobs:
        return ()
    if "content" not in logprobs:
        return _listed(logprobs)
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple((top["token"], top["logprob"]) for top in entry.get("top_logprobs", ())),
        )
        for entry in logprobs["content"]
    )


def _listed(logprobs: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
    return tuple(
        TokenLogprob(token, value, tuple((top or {}).items()))
        for token, value, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True
        )
    )


def error_of(body: bytes) -> dict[str, Any]:
    """The ``error`` object of a refusal; a body without one becomes its message."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": body[:200].decode(errors="replace")}
    return error if isinstance(error, dict) else {"message": str(error)}


def blamed(body: dict[str, Any]) -> str | None:
    """The field that a server which gives no name most likely refused."""
    fields = ("tools", "response_format", "logit_bias")
    return next((field for field in fields if field in body), None)
