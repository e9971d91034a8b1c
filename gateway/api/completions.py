"""``POST /v1/completions``: OpenAI's older endpoint, a text that the model goes on with.

No chat template, no memory: the router chooses adapters by the text, and the engine continues it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from adapters.engines.base import TokenLogprob, Usage
from adapters.engines.tasks import end_tasks
from gateway import replies
from gateway.access.visit import Visit, current_visit
from gateway.api.asking import ask_of
from gateway.api.chat_schemas import MAX_CHOICES, ChatRequest, StreamOptions
from gateway.api.chat_schemas import Usage as UsageBody
from gateway.api.fields import clean_text, refuse_unknown, unserved
from gateway.api.leaving import unless_left
from gateway.api.schemas import MAX_TEXT, ChatMessage, ErrorEnvelope, KikiOptions
from gateway.api.streaming import EventStream, broken
from gateway.services import Services
from gateway.turn import Ask, Piece, Turn
from kiki.errors import RequestError

router = APIRouter()

MAX_PROMPTS = 16
DEFAULT_MAX_TOKENS = 16
_SAME = (
    "model",
    "temperature",
    "top_p",
    "n",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "kiki",
)
"""Fields that mean here what they mean in a chat."""


class CompletionRequest(BaseModel):
    """`POST /v1/completions`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {"model": "base", "prompt": "The capital of France is", "max_tokens": 8}
        },
    )

    model: str = Field(min_length=1, max_length=200)
    prompt: str | list[str] = Field(max_length=MAX_TEXT)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, FiniteFloat] | None = Field(None, max_length=1024)
    logprobs: int | None = Field(None, ge=0, le=5)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    user: str | None = Field(None, max_length=200)
    kiki: KikiOptions = KikiOptions()


class ListedLogprobs(BaseModel):
    """As OpenAI's first API lists them."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    text: str
    index: int
    logprobs: ListedLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """The continuations: of the first prompt all ``n``, then of the second."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses={
        **{status: {"model": ErrorEnvelope} for status in (400, 404, 500, 502, 503)},
        200: {"content": {"text/event-stream": {}}},
    },
)
async def complete(request: Request, body: CompletionRequest) -> Response:
    """Continue one text or several. A client that leaves stops all of them."""
    services: Services = request.app.state.services
    request.state.model = services.models.label(body.model)
    asks = _asks(request, body, services)
    answer = _streamed if body.stream else _plain
    return await unless_left(request, answer(services, body, asks))


def _asks(request: Request, body: CompletionRequest, services: Services) -> list[Ask]:
    refuse_unknown(body.model_extra or {}, frozenset(CompletionRequest.model_fields))
    for name, neutral in (("echo", False), ("suffix", ""), ("best_of", body.n or 1)):
        if getattr(body, name) not in (None, neutral):
            raise unserved(name, f"kiki can't serve {name!r}.")
    if body.kiki.plan == "panel":
        raise unserved("kiki.plan", "A continuation is one model's: there is no panel.")
    for name in ("negotiate", "antibias", "explain", "conversation"):
        if getattr(body.kiki, name):
            raise unserved(f"kiki.{name}", f"A continuation has no {name!r}; a chat has.")
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not prompts or len(prompts) > MAX_PROMPTS:
        raise RequestError(f"prompt takes one to {MAX_PROMPTS} texts.", param="prompt")
    common = {name: getattr(body, name) for name in _SAME}
    common |= {"max_tokens": body.max_tokens or DEFAULT_MAX_TOKENS}
    if body.logprobs is not None:
        common |= {"logprobs": True, "top_logprobs": body.logprobs}
    asks = []
    for number, prompt in enumerate(prompts):
        param = "prompt" if isinstance(body.prompt, str) else f"prompt[{number}]"
        if not clean_text(prompt, param).strip():
            raise RequestError("A prompt is empty.", param=param)
        chat = ChatRequest(messages=[ChatMessage(role="user", content=prompt)], **common)
        ask = ask_of(
            chat,
            services=services,
            key=None,
            request_id=f"{request.state.request_id.replace('chatcmpl', 'cmpl')}-{number}",
            received=request.state.received,
        )
        # A continuation keeps its leading white space, which goes with thinking that is taken out.
        options = replace(
            ask.options, memory=False, negotiate=False, antibias=False, strip_thinking=False
        )
        asks.append(replace(ask, prompt=prompt, options=options, stream=bool(body.stream)))
    return asks


async def _plain(services: Services, body: CompletionRequest, asks: Sequence[Ask]) -> Response:
    turns = [await services.pipeline.prepare(ask) for ask in asks]
    async with aclosing(_together(services, turns)) as pieces:
        async for _ in pieces:
            pass
    for turn in turns:
        services.telemetry.count_turn(turn)
    choices = [choice for turn in turns for choice in turn.choices]
    reply = _head(body, asks) | {
        "choices": [
            {
                "text": choice.text,
                "index": number,
                "logprobs": _listed(choice.logprobs) if body.logprobs is not None else None,
                "finish_reason": choice.finish_reason,
            }
            for number, choice in enumerate(choices)
        ],
        "usage": _usage(turns),
    }
    return JSONResponse(reply, headers=_headers(turns))


async def _streamed(services: Services, body: CompletionRequest, asks: Sequence[Ask]) -> Response:
    turns = [await services.pipeline.prepare(ask) for ask in asks]
    async with AsyncExitStack() as stack:
        pieces = await stack.enter_async_context(aclosing(_together(services, turns)))
        first = await anext(pieces, None)  # a failure before it keeps its status
        events = _events(services, body, turns, first, pieces)
        return EventStream(events, _headers(turns), stack.pop_all())


async def _events(
    services: Services,
    body: CompletionRequest,
    turns: Sequence[Turn],
    first: tuple[int, Piece] | None,
    pieces: AsyncGenerator[tuple[int, Piece], None],
) -> AsyncGenerator[str, None]:
    head = _head(body, [turn.ask for turn in turns])
    offsets: dict[int, int] = {}

    def event(index: int, text: str, logprobs: Any, finish: str | None) -> str:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
        return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"

    def written(place: int, piece: Piece) -> str:
        index = place * (body.n or 1) + piece.choice
        begun = offsets.get(index, 0)
        offsets[index] = begun + len(piece.text)
        logprobs = _listed(piece.logprobs, begun) if piece.logprobs else None
        return event(index, piece.text, logprobs, None)

    try:
        if first is not None:
            yield written(*first)
        async for place, piece in pieces:
            yield written(place, piece)
    except Exception as error:
        yield broken(services, turns[0], error)
        return
    for turn in turns:
        services.telemetry.count_turn(turn)
    for index, choice in enumerate([choice for turn in turns for choice in turn.choices]):
        yield event(index, "", None, choice.finish_reason)
    if body.stream_options and body.stream_options.include_usage:
        yield f"data: {json.dumps(head | {'choices': [], 'usage': _usage(turns)})}\n\n"
    yield replies.DONE


async def _together(
    services: Services, turns: Sequence[Turn]
) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all turns as they come; the first turn that fails ends them all."""
    queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

    visit = current_visit.get() or Visit("")

    async def pump(place: int, turn: Turn) -> None:
        # Each turn waits for places of its own: that another one began is no claim.
        own = replace(visit, tokens=0, began=False)
        current_visit.set(own)
        try:
            async with aclosing(services.pipeline.answer(turn)) as pieces:
                async for piece in pieces:
                    queue.put_nowait((place, piece))
            queue.put_nowait((place, None))
        except Exception as error:  # whatever it is, it is raised where the pieces are read
            queue.put_nowait((place, error))
        finally:
            visit.tokens += own.tokens

    tasks = {asyncio.create_task(pump(place, turn)) for place, turn in enumerate(turns)}
    try:
        unfinished = len(tasks)
        while unfinished:
            place, piece = await queue.get()
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                unfinished -= 1
            else:
                yield place, piece
    finally:
        await end_tasks(tasks)


def _head(body: CompletionRequest, asks: Sequence[Ask]) -> dict[str, Any]:
    return {
        "id": asks[0].id.removesuffix("-0"),
        "object": "text_completion",
        "created": int(asks[0].created),
        "model": body.model,
    }


def _headers(turns: Sequence[Turn]) -> dict[str, str]:
    return replies.headers(replies.explanation(turns[0])) if len(turns) == 1 else {}


def _usage(turns: Sequence[Turn]) -> dict[str, Any]:
    return replies.spent(sum((turn.usage for turn in turns), Usage()))


def _listed(logprobs: Sequence[TokenLogprob], begun: int = 0) -> dict[str, Any]:
    """``text_offset`` counts characters from the start of the continuation."""
    offsets = []
    for token in logprobs:
        offsets.append(begun)
        begun += len(token.token)
    return {
        "tokens": [token.token for token in logprobs],
        "token_logprobs": [token.logprob for token in logprobs],
        "top_logprobs": [dict(token.top) for token in logprobs],
        "text_offset": offsets,
    }
