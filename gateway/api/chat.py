"""``POST /v1/chat/completions``."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from gateway import replies
from gateway.api.asking import MAX_KEY, ask_of
from gateway.api.chat_schemas import ChatCompletion, ChatRequest
from gateway.api.leaving import unless_left
from gateway.api.schemas import ErrorEnvelope
from gateway.api.streaming import Wishes, streamed
from gateway.services import Services
from gateway.turn import Ask

router = APIRouter()

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope} for status in (400, 404, 409, 500, 502, 503)
}
# Read from the request by hand: as a declared parameter it costs every turn 0.08 ms.
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": MAX_KEY},
    "description": "A repeat of the request with the same key gets the first one's answer.",
}


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={**_ERRORS, 200: {"content": {"text/event-stream": {}}}},
    openapi_extra={"parameters": [_IDEMPOTENCY_KEY]},
)
async def chat(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation; all seven stages run. A client that leaves stops its turn."""
    services: Services = request.app.state.services
    request.state.model = services.models.label(body.model)
    ask = ask_of(
        body,
        services=services,
        key=request.headers.get("idempotency-key"),
        request_id=request.state.request_id,
        received=request.state.received,
    )
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    wishes = Wishes(explain=body.kiki.explain, usage=with_usage)
    answer = streamed if ask.stream else _plain
    return await unless_left(request, answer(services, ask, wishes))


async def _plain(services: Services, ask: Ask, wishes: Wishes) -> Response:
    async with services.once.enter(ask) as kept:
        if kept is not None:
            reply = replies.replayed(kept)
            headers = replies.headers(reply["kiki"]) | {"x-kiki-replayed": "true"}
            return JSONResponse(replies.visible(reply, wishes.explain), headers=headers)
        turn = await services.pipeline.prepare(ask)
        async with aclosing(services.pipeline.answer(turn)) as pieces:
            async for _ in pieces:
                pass
        services.telemetry.count_turn(turn)
        reply = replies.completion(turn)
        headers = replies.headers(reply["kiki"])
        return JSONResponse(replies.visible(reply, wishes.explain), headers=headers)
