"""The bodies of ``/v1/responses``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from gateway.api.chat_schemas import MAX_TOP_LOGPROBS, Effort, StreamOptions, ToolName
from gateway.api.schemas import MAX_TEXT, KikiOptions


class InputText(BaseModel):
    """A content part; only text is understood. ``output_text`` is an answer sent back."""

    type: Literal["input_text", "output_text", "text"]
    text: str = Field(max_length=MAX_TEXT)


class MessageItem(BaseModel):
    """A message; an assistant's may be an answer as it was given."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText] = Field(max_length=MAX_TEXT)


class CallItem(BaseModel):
    """A call that the model asked for."""

    type: Literal["function_call"]
    call_id: str = Field(min_length=1, max_length=200)
    name: str = Field(min_length=1, max_length=64)
    arguments: str = Field(max_length=MAX_TEXT)


class CallOutputItem(BaseModel):
    """What a called function returned."""

    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1, max_length=200)
    output: str | list[InputText] = Field(max_length=MAX_TEXT)


class ReasoningItem(BaseModel):
    """What was thought before; the model isn't shown it again."""

    type: Literal["reasoning"]


def _kind(item: object) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)
    return str(kind).title()


InputItem = Annotated[
    Annotated[MessageItem, Tag("Message")]
    | Annotated[CallItem, Tag("Function_Call")]
    | Annotated[CallOutputItem, Tag("Function_Call_Output")]
    | Annotated[ReasoningItem, Tag("Reasoning")],
    Discriminator(
        _kind,
        custom_error_type="unsupported_item",
        custom_error_message="kiki knows message, function_call, function_call_output, reasoning",
    ),
]


class ResponseTool(BaseModel):
    """A function that the model may call; other kinds of tools are refused."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    name: ToolName
    description: str | None = Field(None, max_length=MAX_TEXT)
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of an object.")
    strict: bool | None = None


class NamedFunction(BaseModel):
    """The one tool that must be called."""

    type: Literal["function"]
    name: str


class TextFormat(BaseModel):
    """As ``response_format`` of a chat, without the inner object."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(None, max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: TextFormat | None = None


class Reasoning(BaseModel):
    """``effort`` goes to the chat template; there are no summaries, so ``auto`` gives none."""

    model_config = ConfigDict(extra="forbid")

    effort: Effort | None = None
    summary: Literal["auto"] | None = None


class ResponsesRequest(BaseModel):
    """`POST /v1/responses`. Fields that are not here are refused (docs/api.md)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {"model": "micro-kiki", "input": "How do I find all files over 100 MB?"}
        },
    )

    model: str = Field(min_length=1, max_length=200)
    input: str | list[InputItem] = Field(max_length=MAX_TEXT)
    instructions: str | None = Field(None, max_length=MAX_TEXT)
    previous_response_id: str | None = Field(None, max_length=200)
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[str] | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    user: str | None = Field(None, max_length=200)
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    kiki: KikiOptions = KikiOptions()


class ResponseUsage(BaseModel):
    """All tokens that were spent; ``kiki.usage`` says on what."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens_details: dict[str, int]


class Response(BaseModel):
    """The answer; ``output`` are items: reasoning, a message, function calls."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    incomplete_details: dict[str, str] | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[dict[str, Any]]
    error: dict[str, str] | None
    usage: ResponseUsage | None
    store: bool
    metadata: dict[str, str]


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputItems(BaseModel):
    """The items that came with one response alone, in order."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False
