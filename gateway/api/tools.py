"""Tools of a request, and the calls and results in its messages."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.engines.base import Capabilities, Tool, ToolCall, Tools
from gateway.api.chat_schemas import ChatRequest, ChatTool, NamedTool
from gateway.api.fields import clean_text, unserved
from gateway.api.schemas import ChatMessage
from kiki.errors import RequestError
from kiki.names import near

_ANYTHING = {"type": "object", "properties": {}}


def tools_of(body: ChatRequest, engine: Capabilities) -> Tools | None:
    """The tools that the model is shown, None where it may call none. Raises RequestError."""
    choice = body.tool_choice
    if not body.tools:
        if choice not in (None, "none", "auto"):
            raise RequestError("tool_choice needs tools.", param="tool_choice", fix="Send tools.")
        return None
    tools = tuple(_tool(tool) for tool in body.tools)
    names = [tool.name for tool in tools]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise RequestError(f"Two tools are named {name!r}.", param=f"tools[{number}].function")
    if choice == "none":
        return None
    _check_engine(body, engine)
    only = choice.function.name if isinstance(choice, NamedTool) else None
    if only is not None and only not in names:
        raise RequestError(
            f"No tool is named {only!r}.{near(only, names)}", param="tool_choice.function.name"
        )
    return Tools(
        tools,
        required=choice == "required" or only is not None,
        only=only,
        parallel=body.parallel_tool_calls is not False,
    )


def _tool(tool: ChatTool) -> Tool:
    function = tool.function
    return Tool(
        function.name,
        function.description or "",
        function.parameters or _ANYTHING,
        strict=bool(function.strict),
    )


def _check_engine(body: ChatRequest, engine: Capabilities) -> None:
    """Where the engine writes tools as JSON, nothing else may shape the answer."""
    if engine.tools:
        return
    if not engine.json_schema:
        raise unserved("tools", "This engine can't serve tools.")
    if body.response_format is not None and body.response_format.type != "text":
        raise unserved("response_format", "This model can't serve response_format with tools.")
    if body.logprobs:
        raise unserved("logprobs", "This model can't serve logprobs with tools.")


def calls_of(message: ChatMessage, number: int) -> tuple[ToolCall, ...]:
    """The calls in message ``number``. Raises RequestError for text that can't be passed on."""
    param = f"messages[{number}].tool_calls"
    return tuple(
        ToolCall(
            clean_text(call.id, param),
            clean_text(call.function.name, param),
            clean_text(call.function.arguments, param),
        )
        for call in message.tool_calls or ()
    )


def check_results(messages: Sequence[ChatMessage]) -> None:
    """Raises RequestError for a tool's message that answers no call before it."""
    called: set[str] = set()
    for number, message in enumerate(messages):
        called.update(call.id for call in message.tool_calls or ())
        if message.role == "tool" and message.tool_call_id not in called:
            raise RequestError(
                f"No message before asks for the call {message.tool_call_id!r}.",
                param=f"messages[{number}].tool_call_id",
                fix="Send the assistant's message with its tool_calls before it.",
            )
