"""From a body of ``/v1/responses``, and the responses before it, to an ``Ask``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.api.asking import ask_of
from gateway.api.chat_schemas import ChatRequest
from gateway.api.fields import check_writable, refuse_unknown, unserved
from gateway.api.responses_schemas import (
    CallItem,
    CallOutputItem,
    InputItem,
    InputText,
    MessageItem,
    NamedFunction,
    ResponsesRequest,
)
from gateway.services import Services
from gateway.turn import Ask
from kiki.errors import RequestError
from memory.response_log import StoredResponse

LOGPROBS = "message.output_text.logprobs"
# Nothing is encrypted here: thinking is given as it is, and not needed again.
_INCLUDED = frozenset({LOGPROBS, "reasoning.encrypted_content"})
_KNOWN_FIELDS = frozenset(ResponsesRequest.model_fields)
_ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])
_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
"""What a chat's fields are called here."""


def ask_for(
    body: ResponsesRequest,
    before: Sequence[StoredResponse],
    *,
    services: Services,
    request_id: str,
    received: float,
) -> Ask:
    """``before`` are the responses that this one goes on from, oldest first. Raises RequestError
    with the field in ``param``."""
    refuse_unknown(body.model_extra or {}, _KNOWN_FIELDS)
    for name in body.include or ():
        if name not in _INCLUDED:
            raise unserved("include", f"kiki can't include {name!r}.")
    check_writable(body.metadata, "metadata")
    if body.text and body.text.format:
        check_writable(body.text.format.description, "text.format.description")
    items = [item for link in before for item in _stored(link)] + input_items(body)
    with renamed():
        chat = ChatRequest.model_validate(_chat_fields(body, items))
        ask = ask_of(chat, services=services, key=None, request_id=request_id, received=received)
    if body.kiki.conversation is None:
        ask = replace(ask, conversation=before[0].id if before else request_id)
    return replace(ask, stream=bool(body.stream))


def input_items(body: ResponsesRequest) -> list[InputItem]:
    """What came with this request; a text is a message of the user."""
    if isinstance(body.input, str):
        return [MessageItem(role="user", content=body.input)]
    return body.input


@contextmanager
def renamed() -> Iterator[None]:
    """Errors name the fields of a response, not those of the chat that is made of it."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        raise RequestError(problem["msg"], param=_NAMES.get(name, name)) from error
    except RequestError as error:
        name = (error.param or "").partition("[")[0].partition(".")[0]
        if name in _NAMES:
            error.param = _NAMES[name]
        raise


def _stored(link: StoredResponse) -> list[InputItem]:
    output = json.loads(link.body)["output"]
    return _ITEMS.validate_python(json.loads(link.input) + output)


def _chat_fields(body: ResponsesRequest, items: Sequence[InputItem]) -> dict[str, Any]:
    messages = _messages(items)
    if body.instructions:
        messages.insert(0, {"role": "system", "content": body.instructions})
    logprobs = LOGPROBS in (body.include or ())
    if body.top_logprobs and not logprobs:
        raise RequestError(f"top_logprobs needs include: [{LOGPROBS!r}].", param="top_logprobs")
    choice: Any = body.tool_choice
    if isinstance(choice, NamedFunction):
        choice = {"type": "function", "function": {"name": choice.name}}
    same = ("model", "temperature", "top_p", "presence_penalty", "frequency_penalty")
    return {name: getattr(body, name) for name in (*same, "parallel_tool_calls", "user")} | {
        "messages": messages,
        "max_completion_tokens": body.max_output_tokens,
        "logprobs": logprobs,
        "top_logprobs": body.top_logprobs if logprobs else None,
        "tools": [
            {"type": "function", "function": tool.model_dump(exclude={"type"})}
            for tool in body.tools or ()
        ],
        "tool_choice": choice,
        "response_format": _format(body),
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "kiki": body.kiki,
    }


def _format(body: ResponsesRequest) -> dict[str, Any] | None:
    wanted = body.text.format if body.text else None
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.schema_ is None:
        raise RequestError("The schema is missing.", param="text.format.schema")
    schema = {"name": wanted.name or "answer", "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


def _messages(items: Sequence[InputItem]) -> list[dict[str, Any]]:
    """Calls that follow each other, or an assistant's words, are one message."""
    messages: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, MessageItem):
            messages.append({"role": item.role, "content": _text(item.content)})
        elif isinstance(item, CallItem):
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(_call(item))
        elif isinstance(item, CallOutputItem):
            said = {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
            messages.append(said)
    return messages


def _call(item: CallItem) -> dict[str, Any]:
    function = {"name": item.name, "arguments": item.arguments}
    return {"id": item.call_id, "type": "function", "function": function}


def _text(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
