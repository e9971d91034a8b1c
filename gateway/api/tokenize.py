"""``POST /tokenize``, in vLLM's shape: what a prompt costs, and the ids that logit_bias takes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from adapters.engines.base import GenerateRequest
from adapters.engines.written_tools import written
from gateway.api.asking import check_request, engine_messages
from gateway.api.chat_schemas import ChatRequest, ChatTool
from gateway.api.fields import clean_text, refuse_unknown, unserved
from gateway.api.sampling import variables_of
from gateway.api.schemas import MAX_TEXT, ChatMessage, ErrorEnvelope
from gateway.api.tools import tools_of
from gateway.models import AUTO
from gateway.services import Services
from kiki.errors import RequestError

router = APIRouter()


class TokenizeRequest(BaseModel):
    """`POST /tokenize`: either ``prompt`` or ``messages``. What recall adds is not counted."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"example": {"model": "base", "prompt": "Hello, world"}}
    )

    model: str = Field(AUTO, min_length=1, max_length=200)
    prompt: str | None = Field(None, max_length=MAX_TEXT)
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    tools: list[ChatTool] | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, max_length=64)
    add_generation_prompt: bool = True
    add_special_tokens: bool | None = None
    return_token_strs: bool = False


class Tokens(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


@router.post(
    "/tokenize",
    response_model=Tokens,
    responses={status: {"model": ErrorEnvelope} for status in (400, 404, 502, 503)},
)
async def tokenize(request: Request, body: TokenizeRequest) -> Tokens:
    """The tokens of a text, or of messages as the model's chat template writes them."""
    services: Services = request.app.state.services
    refuse_unknown(body.model_extra or {}, frozenset(TokenizeRequest.model_fields))
    services.models.resolve(body.model)
    engine = services.engine.capabilities
    asked = _request(body, services)
    tokens = await services.engine.tokenize(
        asked if engine.tools else written(asked), answer=body.add_generation_prompt
    )
    return Tokens(
        count=len(tokens),
        max_model_len=engine.context_tokens,
        tokens=[token.id for token in tokens],
        token_strs=[token.text for token in tokens] if body.return_token_strs else None,
    )


def _request(body: TokenizeRequest, services: Services) -> GenerateRequest:
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("Give either prompt or messages.", param="prompt")
    # A text gets the tokens that open one; a template writes its own.
    if body.add_special_tokens not in (None, body.messages is None):
        raise unserved("add_special_tokens", "kiki can't change which special tokens are added.")
    if body.prompt is not None:
        for name in ("tools", "chat_template_kwargs"):
            if getattr(body, name):
                raise unserved(name, f"{name} go with messages: no template writes a text.")
        return GenerateRequest((), prompt=clean_text(body.prompt, "prompt"))
    chat = ChatRequest(
        model=body.model,
        messages=body.messages or [],
        tools=body.tools,
        chat_template_kwargs=body.chat_template_kwargs,
    )
    check_request(services.settings, chat)
    engine = services.engine.capabilities
    return GenerateRequest(
        engine_messages(chat.messages),
        tools=tools_of(chat, engine),
        variables=variables_of(chat, engine),
    )
