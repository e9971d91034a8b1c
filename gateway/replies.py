"""From a finished turn to the bodies that go out, plain and streamed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from adapters.mix import Mix
from gateway.turn import STAGES, StageReport, Turn


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
                "index": 0,
                "message": {"role": "assistant", "content": turn.answer, "refusal": None},
                "logprobs": None,
                "finish_reason": turn.finish_reason,
            }
        ],
        "usage": usage(turn),
        "kiki": explanation(turn),
    }


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
    spent = turn.usage
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": spent.cached_tokens},
    }


class Chunks:
    """The chunks of one stream: a stable head, built once, since a token must cost little."""

    def __init__(self, id: str, created: int, model: str) -> None:
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = json.dumps(head)[:-1]

    def role(self) -> str:
        return self._choice('{"role": "assistant", "content": ""}', "null")

    def text(self, piece: str) -> str:
        return self._choice('{"content": ' + json.dumps(piece) + "}", "null")

    def end(self, finish_reason: str, kiki: dict[str, Any] | None) -> str:
        return self._choice("{}", json.dumps(finish_reason), kiki)

    def usage(self, usage: dict[str, Any]) -> str:
        return f'data: {self._head}, "choices": [], "usage": {json.dumps(usage)}}}\n\n'

    def _choice(self, delta: str, finish: str, kiki: dict[str, Any] | None = None) -> str:
        extra = f', "kiki": {json.dumps(kiki)}' if kiki else ""
        return (
            f'data: {self._head}, "choices": [{{"index": 0, "delta": {delta}, '
            f'"logprobs": null, "finish_reason": {finish}}}]{extra}}}\n\n'
        )


DONE = "data: [DONE]\n\n"
KEEP_ALIVE = ": keep-alive\n\n"


def _stage(report: StageReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "ms": round(report.ms, 3),
        "waited_ms": round(report.waited_ms, 3),
        "decision": report.decision,
    }
