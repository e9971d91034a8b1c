"""Tools for models whose template has none: told in the prompt, called in JSON by a grammar.

The model answers with ``{"tool_calls": [{"name": ..., "arguments": {...}}]}`` or, where it need not
call, ``{"response": "..."}``; a JSON schema holds it to that, and ``Reader`` takes it apart again.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from adapters.engines.base import (
    CallPiece,
    Delta,
    Engine,
    GenerateRequest,
    Message,
    Tool,
    Tools,
)
from kiki.errors import RequestError

MOST_CALLS = 8
"""In one answer: a small model that may go on does."""


async def generate(
    engine: Engine, requests: Sequence[GenerateRequest]
) -> AsyncGenerator[Delta, None]:
    """``Engine.generate``, with tools written where the engine has none of its own."""
    if engine.capabilities.tools:
        readers: dict[int, Reader] = {}
    else:
        readers = {row: Reader() for row, request in enumerate(requests) if request.tools}
        requests = [written(request) for request in requests]
    try:
        async with aclosing(engine.generate(requests)) as deltas:
            async for delta in deltas:
                reader = readers.get(delta.row)
                yield reader.read(delta) if reader else delta
    except RequestError as error:
        if readers and error.param == "response_format":  # the schema was made of the tools
            error.param = "tools"
        raise


def written(request: GenerateRequest) -> GenerateRequest:
    """The same request for a template without tools: no tool, call or result is left in it."""
    messages = tuple(_plain(message) for message in request.messages)
    if request.tools is None:
        return replace(request, messages=messages)
    return replace(
        request,
        messages=_told(messages, request.tools),
        sampling=replace(request.sampling, json_schema=_schema(request.tools)),
        tools=None,
    )


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"The tool answered: {message.content}")
    if message.tool_calls:
        calls = ", ".join(
            f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
            for call in message.tool_calls
        )
        return Message("assistant", f'{message.content}{{"tool_calls": [{calls}]}}')
    return message


def _told(messages: tuple[Message, ...], tools: Tools) -> tuple[Message, ...]:
    """With the tools in the system message, or in one that is made for them."""
    lines = [json.dumps(_described(tool), ensure_ascii=False) for tool in tools.tools]
    parts = ["You can call these tools:", *lines, CALL if tools.required else f"{CALL}\n{ANSWER}"]
    text = "\n".join(parts)
    if messages and messages[0].role == "system":
        return (Message("system", f"{messages[0].content}\n\n{text}"), *messages[1:])
    return (Message("system", text), *messages)


CALL = 'To call tools, write {"tool_calls": [{"name": "...", "arguments": {...}}]}.'
ANSWER = 'To answer without a tool, write {"response": "..."}.'


def _described(tool: Tool) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }


def _schema(tools: Tools) -> Mapping[str, object]:
    definitions: dict[str, object] = {}
    calls = {
        "type": "array",
        "items": {
            "anyOf": [
                _call_schema(tool, f"{number}.", definitions)
                for number, tool in enumerate(tools.tools)
                if tools.only in (None, tool.name)
            ]
        },
        "minItems": 1,
        "maxItems": MOST_CALLS if tools.parallel and tools.only is None else 1,
    }
    called = _object({"tool_calls": calls})
    schema = called if tools.required else {"anyOf": [called, _object({"response": TEXT})]}
    return {**schema, "$defs": definitions} if definitions else schema


TEXT: Mapping[str, object] = {"type": "string"}


def _call_schema(tool: Tool, prefix: str, definitions: dict[str, object]) -> Mapping[str, object]:
    """A call's schema; what its parameters define goes to ``definitions``, named by ``prefix``."""
    parameters = dict(tool.parameters)
    for place in ("$defs", "definitions"):
        made = parameters.pop(place, None) or {}
        assert isinstance(made, Mapping)
        definitions |= {f"{prefix}{name}": _moved(one, prefix) for name, one in made.items()}
    arguments = {"type": "object"} | _moved(parameters, prefix)
    return _object({"name": {"const": tool.name}, "arguments": arguments})


def _moved(schema: Any, prefix: str) -> Any:
    """The schema with its references to definitions led to where they were moved."""
    if isinstance(schema, Mapping):
        return {
            name: _REFERENCE.sub(rf"#/$defs/{prefix}", value)
            if name == "$ref" and isinstance(value, str)
            else _moved(value, prefix)
            for name, value in schema.items()
        }
    return [_moved(one, prefix) for one in schema] if isinstance(schema, list) else schema


def _object(properties: Mapping[str, object]) -> Mapping[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_REFERENCE = re.compile(r"^#/(?:\$defs|definitions)/")
_HEAD = re.compile(r'\s*\{\s*"(?:(tool_calls)"\s*:\s*\[|response"\s*:\s*")')
_CALL = re.compile(r'[\s,]*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_CALL_END = re.compile(r"\s*\}")
_TEXT = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB]..(?:\\u[0-9a-fA-F]{4}|(?=[^\\]|\\[^u])))+"
)


class Reader:
    """Takes one answer apart while it comes: text of ``response``, pieces of calls."""

    def __init__(self) -> None:
        self._rest = ""
        self._state = self._head
        self._calls = 0
        self._depth = 0
        self._quoted = False
        self._escaped = False
        self._text = ""
        self._pieces: list[CallPiece] = []

    def read(self, delta: Delta) -> Delta:
        """The delta as the caller is to see it."""
        self._rest += delta.text
        self._text, self._pieces = "", []
        while self._rest and self._state():
            pass
        finish = delta.finish_reason
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        return replace(delta, text=self._text, calls=tuple(self._pieces), finish_reason=finish)

    def _head(self) -> bool:
        found = self._take(_HEAD)
        if found is None:
            return False
        self._state = self._call if found[1] else self._response
        return True

    def _response(self) -> bool:
        """What is whole of the string; an escape that is cut in two waits for its end."""
        found = self._take(_TEXT)
        if found is not None:
            text = json.loads(f'"{found[0]}"', strict=False)
            # Half a surrogate pair is no character.
            self._text += text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return found is not None

    def _call(self) -> bool:
        found = self._take(_CALL)
        if found is None:
            return False
        id_ = f"call_{secrets.token_hex(12)}"
        self._pieces.append(CallPiece(self._calls, id=id_, name=json.loads(found[1])))
        self._calls += 1
        self._state = self._arguments
        return True

    def _arguments(self) -> bool:
        """The object as it is written, up to the bracket that closes it."""
        end = self._object_end()
        piece, self._rest = self._rest[:end], self._rest[end:]
        self._pieces.append(CallPiece(self._calls - 1, piece))
        if not self._depth:
            self._state = self._after
        return not self._depth

    def _object_end(self) -> int:
        for place, letter in enumerate(self._rest, start=1):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = letter == "\\"
                self._quoted = letter != '"'
            elif letter == '"':
                self._quoted = True
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if not self._depth:
                    return place
        return len(self._rest)

    def _after(self) -> bool:
        found = self._take(_CALL_END)
        if found is None:
            return False
        self._state = self._call
        return True

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._rest)
        if found is not None:
            self._rest = self._rest[found.end() :]
        return found
