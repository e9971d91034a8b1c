"""From a finished turn to the bodies that go out, plain and streamed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from adapters.engines.base import CallPiece, TokenLogprob, Usage
from adapters.mix import Mix
from gateway.turn import STAGES, Answered, Piece, StageReport, Turn


def headers(kiki: dict[str, Any]) -> dict[str, str]:
    """What happened, for clients that don't read the body; known before the answer.

    ``kiki`` is an explanation. Its names are percent-encoded: callers and folders choose them.
    """
    mix = Mix.of(kiki["adapters"])
    fields = {
        "x-kiki-plan": kiki["plan"],
        "x-kiki-adapters": str(mix),
        "x-kiki-domains": ",".join(kiki["domains"]),
        "x-kiki-base-only": ",".join(kiki["base_only"]),
        "x-kiki-memory": kiki["memory"],
        "x-kiki-conversation": kiki["conversation"],
    }
    return {name: quote(value, safe="=+,") for name, value in fields.items() if value}


def explanation(turn: Turn) -> dict[str, Any]:
    """The ``kiki`` object: plan, adapters, memory, and the stages that have run."""
    return {
        "plan": turn.mount.plan,
        "adapters": dict(turn.mount.mix.weights),
        "domains": [domain.name for domain in turn.route.active] if turn.route else [],
        "base_only": list(turn.mount.base_only),
        "memory": turn.memory,
        "conversation": turn.ask.conversation,
        "gateway_ms": round(turn.gateway_ms, 3),
        "usage": {part: spent(tokens) for part, tokens in turn.spent.items()},
        "stages": [_stage(report) for report in turn.reports],
    }


def completion(turn: Turn) -> dict[str, Any]:
    """The whole answer, with ``kiki``; ``visible`` takes that out where it wasn't asked for."""
    return {
        "id": turn.ask.id,
        "object": "chat.completion",
        "created": int(turn.ask.created),
        "model": turn.ask.model,
        "choices": [
            {
                "index": number,
                "message": message(choice),
                "logprobs": logprobs(choice.logprobs) if turn.ask.sampling.logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for number, choice in enumerate(turn.choices)
        ],
        "usage": usage(turn),
        "kiki": explanation(turn),
    }


def message(choice: Answered) -> dict[str, Any]:
    """The assistant's message; what was thought stands under both names that clients read."""
    content = None if choice.calls and not choice.text else choice.text
    said: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if choice.reasoning:
        said |= {"reasoning": choice.reasoning, "reasoning_content": choice.reasoning}
    if choice.calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.calls
        ]
    return said


def logprobs(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    """OpenAI's form; ``bytes`` is null for a token that is only part of a character."""
    return {
        "content": [
            {
                **_logprob(token.token, token.logprob),
                "top_logprobs": [_logprob(text, value) for text, value in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _logprob(text: str, value: float) -> dict[str, Any]:
    whole = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": value, "bytes": whole}


def visible(reply: dict[str, Any], explain: bool) -> dict[str, Any]:
    """The reply as this caller asked for it."""
    if explain:
        return reply
    kiki = reply["kiki"]
    rest = {name: value for name, value in reply.items() if name != "kiki"}
    return rest | {"kiki": {"memory": "unavailable"}} if kiki["memory"] == "unavailable" else rest


def replayed(reply: str) -> dict[str, Any]:
    """A stored reply; its write stage is this one's, which had nothing to do."""
    body: dict[str, Any] = json.loads(reply)
    done = {stage["name"] for stage in body["kiki"]["stages"]}
    for name in STAGES:
        if name not in done:
            report = StageReport(name, 0.0, 0.0, {"replayed": True})
            body["kiki"]["stages"].append(_stage(report))
    return body


def usage(turn: Turn) -> dict[str, Any]:
    """All tokens spent on the turn, as the engine counted them."""
    return spent(turn.usage)


def spent(tokens: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.completion_tokens,
        "total_tokens": tokens.prompt_tokens + tokens.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": tokens.cached_tokens},
    }


_SAID = ("content", "reasoning", "reasoning_content")


class Chunks:
    """The chunks of one stream: a stable head, built once, since a token must cost little."""

    def __init__(self, id: str, created: int, model: str) -> None:
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = json.dumps(head)[:-1]

    def role(self, choice: int = 0) -> str:
        return self._choice('{"role": "assistant", "content": ""}', "null", choice=choice)

    def piece(self, piece: Piece) -> str:
        if not (piece.reasoning or piece.calls or piece.logprobs):
            return self._choice(
                f'{{"content": {json.dumps(piece.text)}}}', "null", choice=piece.choice
            )
        tokens = json.dumps(logprobs(piece.logprobs)) if piece.logprobs else "null"
        delta = json.dumps(_delta(piece))
        return self._choice(delta, "null", logprobs=tokens, choice=piece.choice)

    def whole(self, choice: dict[str, Any]) -> str:
        """A choice of a kept reply in one piece."""
        message = choice["message"]
        delta = {name: message[name] for name in _SAID if message.get(name)}
        if calls := message.get("tool_calls"):
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
        tokens = json.dumps(choice["logprobs"])
        return self._choice(json.dumps(delta), "null", logprobs=tokens, choice=choice["index"])

    def end(self, finish_reason: str, kiki: dict[str, Any] | None, choice: int = 0) -> str:
        return self._choice("{}", json.dumps(finish_reason), kiki, choice=choice)

    def usage(self, usage: dict[str, Any]) -> str:
        return f'data: {self._head}, "choices": [], "usage": {json.dumps(usage)}}}\n\n'

    def _choice(
        self,
        delta: str,
        finish: str,
        kiki: dict[str, Any] | None = None,
        *,
        logprobs: str = "null",
        choice: int = 0,
    ) -> str:
        extra = f', "kiki": {json.dumps(kiki)}' if kiki else ""
        return (
            f'data: {self._head}, "choices": [{{"index": {choice}, "delta": {delta}, '
            f'"logprobs": {logprobs}, "finish_reason": {finish}}}]{extra}}}\n\n'
        )


def _delta(piece: Piece) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
    if piece.reasoning:
        delta |= {"reasoning": piece.reasoning, "reasoning_content": piece.reasoning}
    if piece.calls:
        delta["tool_calls"] = [_call(call) for call in piece.calls]
    return delta


def _call(call: CallPiece) -> dict[str, Any]:
    """Id, type and name come once, with a call's first piece; later they are absent, not null."""
    function: dict[str, Any] = {"arguments": call.arguments}
    if call.name is None:
        return {"index": call.index, "function": function}
    function = {"name": call.name} | function
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"


def _stage(report: StageReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "ms": round(report.ms, 3),
        "waited_ms": round(report.waited_ms, 3),
        "decision": report.decision,
    }
