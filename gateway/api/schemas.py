"""The OpenAI request and response bodies, with kiki's own additions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

MAX_TEXT = 1_000_000


def _number(value: object) -> object:
    """JSON's true and "0.5" are no numbers here."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Weight = Annotated[FiniteFloat, BeforeValidator(_number)]


class TextPart(BaseModel):
    """A content part; only text is understood."""

    type: Literal["text"]
    text: str = Field(max_length=MAX_TEXT)


class FunctionCall(BaseModel):
    """A function's name, and its arguments as JSON."""

    name: str = Field(min_length=1, max_length=64)
    arguments: str = Field(max_length=MAX_TEXT)


class MessageToolCall(BaseModel):
    """A call that the assistant asked for."""

    id: str = Field(min_length=1, max_length=200)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    """One message. ``developer`` is read as ``system``; ``name`` has no effect."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = Field(None, max_length=MAX_TEXT)
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = Field(None, max_length=200)

    @model_validator(mode="after")
    def _whole(self) -> ChatMessage:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message has tool_calls")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("a tool's message, and no other, has a tool_call_id")
        return self

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or ())


class KikiOptions(BaseModel):
    """The ``kiki`` object of a request: what to force, and whether to explain."""

    model_config = ConfigDict(extra="forbid")

    explain: bool = Field(False, description="Send back a `kiki` object with every stage.")
    plan: Literal["auto", "single", "blend", "panel"] = "auto"
    adapters: dict[str, Weight] | None = Field(
        None, description='The mix to use, for example `{"shell": 0.7, "python": 0.3}`.'
    )
    memory: bool = Field(True, description="False neither recalls nor remembers.")
    conversation: str | None = Field(None, min_length=1, max_length=200)
    threshold: float | None = Field(None, gt=0, lt=1, description="Router threshold of this turn.")
    top_k: int | None = Field(None, ge=1, le=4, description="Domains at most.")
    negotiate: bool | None = Field(
        None,
        description="True: a panel where two adapters are active. False: no votes. Unset: by the "
        "domain table.",
    )
    antibias: bool | None = Field(
        None,
        description="True: the answer is reviewed. False: it is not. Unset: by the domain table.",
    )
    strip_thinking: bool = Field(True, description="Take `<think>` blocks out of the answer.")


class RouteRequest(BaseModel):
    """`POST /v1/route`. ``query`` may be a list; the answer then is one too.

    ``messages`` instead of it are one conversation, whose last user turn is routed.
    """

    model_config = ConfigDict(extra="forbid")

    query: str | list[str] | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=2000)
    threshold: float | None = Field(None, gt=0, lt=1)
    top_k: int = Field(4, ge=1, le=4)
    explain: bool = Field(False, description="Say why: all scores, near prompts, the dialogue.")


class DomainScore(BaseModel):
    name: str
    score: float


class RouteShare(BaseModel):
    """An active domain's part of the answer; ``member`` is the one meant of a merged domain."""

    name: str
    weight: float
    member: str


class NearPrompt(BaseModel):
    """A prompt that the router learned from, and the cosine of both embeddings."""

    prompt: str
    domains: list[str]
    similarity: float


class RouteStickiness(BaseModel):
    """What the conversation did: its share of the route, and the first domain without and with."""

    share: float
    alone: str
    together: str
    effect: str


class RouteExplanation(BaseModel):
    """Why: ``in_domain`` under ``scope_threshold`` leaves the prompt to the base, unless the
    caller gave a threshold."""

    scores: list[DomainScore]
    shares: list[RouteShare]
    threshold: float
    in_domain: float
    scope_threshold: float
    confidence: float
    clear: bool
    conversation: RouteStickiness
    advised: bool
    nearest: list[NearPrompt]


class RouteAnswer(BaseModel):
    """The active domains; ``fallback`` says that none is, and the base would answer."""

    query: str
    domains: list[DomainScore]
    fallback: bool
    explain: RouteExplanation | None = None


class RouteAnswers(BaseModel):
    """The answers to a list of queries, in its order."""

    results: list[RouteAnswer]


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "kiki"
    kiki: dict[str, Any]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class ServedAdapter(BaseModel):
    """One adapter; ``fingerprint`` changes when its files do."""

    id: str
    object: Literal["adapter"] = "adapter"
    form: Literal["mlx", "peft", "gguf"]
    rank: int
    alpha: float
    bytes: int
    base: str
    fingerprint: str


class LeftOut(BaseModel):
    """An adapter of the folder that isn't served, and why."""

    id: str
    reason: str


class AdapterList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ServedAdapter]
    refused: list[LeftOut]


class AdapterChange(BaseModel):
    """What a refresh did, by name."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    refused: list[LeftOut]


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """What every error looks like."""

    error: ErrorBody
