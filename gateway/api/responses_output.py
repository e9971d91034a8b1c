"""A response while it is written: its items, and the events that tell of them.

The order of events is OpenAI's: created, in progress, each item with its parts from added to done,
completed (or incomplete, or failed); ``sequence_number`` counts them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from adapters.engines.base import CallPiece
from gateway import replies
from gateway.api.responses_schemas import ResponsesRequest
from gateway.turn import Ask, Piece, Turn


class Writer:
    """Takes the pieces of an answer; gives the events they make, and the response at the end."""

    def __init__(self, body: ResponsesRequest, ask: Ask) -> None:
        self._ask = ask
        self._next = 0
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._calls: dict[int, dict[str, Any]] = {}
        self.response = _head(body, ask) | {"output": self._items}

    def begin(self) -> Iterator[str]:
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self.response | {"output": []})

    def take(self, piece: Piece) -> Iterator[str]:
        """The events of a piece."""
        if piece.reasoning:
            yield from self._switch("reasoning")
            yield from self._delta("response.reasoning_text", piece.reasoning)
        if piece.text or (piece.logprobs and not piece.calls):
            yield from self._switch("message")
            yield from self._delta("response.output_text", piece.text, piece)
        for call in piece.calls:
            yield from self._call(call)

    def end(self, turn: Turn, kiki: dict[str, Any] | None) -> Iterator[str]:
        """What closes the last item; the response is whole after this, and ``last`` tells it."""
        if not self._items:
            yield from self._switch("message")
        cut = turn.finish_reason == "length"
        yield from self._close("incomplete" if cut else "completed")
        self.response["usage"] = _usage(turn)
        if kiki:
            self.response["kiki"] = kiki
        if cut:
            details = {"reason": "max_output_tokens"}
            self.response |= {"status": "incomplete", "incomplete_details": details}
        else:
            self.response |= {"status": "completed", "completed_at": int(time.time())}

    def last(self) -> str:
        return self._event(f"response.{self.response['status']}", response=self.response)

    def fail(self, error: dict[str, Any]) -> str:
        """The event of a response that broke."""
        told = {"code": error["code"] or error["type"], "message": error["message"]}
        self.response |= {"status": "failed", "error": told}
        return self.last()

    def _switch(self, kind: str) -> Iterator[str]:
        """Make an item of that kind the one that is written."""
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._close("completed")
        if kind == "message":
            item = {"id": _id("msg"), "role": "assistant", "content": []}
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
            part["logprobs"] = []
        else:
            item = {"id": _id("rs"), "summary": [], "content": []}
            part = {"type": "reasoning_text", "text": ""}
        yield from self._add({"type": kind, "status": "in_progress", **item})
        yield self._event("response.content_part.added", part=dict(part), **self._place(0))
        self._items[-1]["content"].append(part)

    def _add(self, item: dict[str, Any]) -> Iterator[str]:
        self._open = item
        self._items.append(item)
        place = len(self._items) - 1
        yield self._event("response.output_item.added", output_index=place, item=item)

    def _delta(self, name: str, text: str, piece: Piece | None = None) -> Iterator[str]:
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        fields: dict[str, Any] = {}
        if piece is not None:
            fields["logprobs"] = _logprobs(piece)
            part["logprobs"] += fields["logprobs"]
        yield self._event(f"{name}.delta", delta=text, **fields, **self._place(0))

    def _call(self, call: CallPiece) -> Iterator[str]:
        if call.index not in self._calls:
            yield from self._close("completed")
            item = {
                "type": "function_call",
                "id": _id("fc"),
                "call_id": call.id,
                "name": call.name,
                "arguments": "",
                "status": "in_progress",
            }
            self._calls[call.index] = item
            yield from self._add(item)
        if call.arguments:
            self._calls[call.index]["arguments"] += call.arguments
            kind = "response.function_call_arguments.delta"
            yield self._event(kind, delta=call.arguments, **self._place())

    def _close(self, status: str) -> Iterator[str]:
        item, self._open = self._open, None
        if item is None:
            return
        item["status"] = status
        place = {"item_id": item["id"], "output_index": len(self._items) - 1}
        if item["type"] == "function_call":
            yield self._event(
                "response.function_call_arguments.done",
                name=item["name"],
                arguments=item["arguments"],
                **place,
            )
        else:
            part = item["content"][0]
            told = {"text": part["text"], "content_index": 0, **place}
            if item["type"] == "message":
                told["logprobs"] = part["logprobs"]
            name = "output_text" if item["type"] == "message" else "reasoning_text"
            yield self._event(f"response.{name}.done", **told)
            yield self._event("response.content_part.done", part=part, content_index=0, **place)
        yield self._event(
            "response.output_item.done", output_index=place["output_index"], item=item
        )

    def _place(self, content: int | None = None) -> dict[str, Any]:
        assert self._open is not None
        place = {"item_id": self._open["id"], "output_index": len(self._items) - 1}
        return place if content is None else place | {"content_index": content}

    def _event(self, kind: str, **fields: Any) -> str:
        data = {"type": kind, "sequence_number": self._next, **fields}
        self._next += 1
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def whole(turn: Turn) -> Piece:
    """The answer of a turn that has ended, in one piece."""
    (choice,) = turn.choices
    calls = tuple(
        CallPiece(number, call.arguments, call.id, call.name)
        for number, call in enumerate(choice.calls)
    )
    return Piece(choice.text, choice.reasoning, calls, choice.logprobs)


def _head(body: ResponsesRequest, ask: Ask) -> dict[str, Any]:
    sampling = ask.sampling
    return {
        "id": ask.id,
        "object": "response",
        "created_at": int(ask.created),
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "model": body.model,
        "previous_response_id": body.previous_response_id,
        "instructions": body.instructions,
        "output": [],
        "error": None,
        "tools": [_tool(tool.model_dump()) for tool in body.tools or ()],
        "tool_choice": body.model_dump(include={"tool_choice"})["tool_choice"] or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "truncation": "disabled",
        "text": {"format": _format(body)},
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "top_logprobs": sampling.top_logprobs,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "usage": None,
        "store": body.store is not False,
        "background": False,
        "service_tier": "default",
        "metadata": body.metadata or {},
        "user": body.user,
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return tool | {"strict": bool(tool["strict"])}


def _format(body: ResponsesRequest) -> dict[str, Any]:
    wanted = body.text.format if body.text else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type if wanted else "text"}
    return {
        "type": "json_schema",
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.schema_,
        "strict": bool(wanted.strict),
    }


def _logprobs(piece: Piece) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = replies.logprobs(piece.logprobs)["content"]
    for entry in entries:
        for one in (entry, *entry["top_logprobs"]):
            one["bytes"] = one["bytes"] or []
    return entries


def _usage(turn: Turn) -> dict[str, Any]:
    spent = turn.usage
    return {
        "input_tokens": spent.prompt_tokens,
        "output_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "input_tokens_details": {"cached_tokens": spent.cached_tokens},
        # Engines count thinking with the rest.
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"
