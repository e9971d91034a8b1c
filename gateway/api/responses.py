"""``/v1/responses``: OpenAI's newer endpoint, whose conversations are kept here."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.responses import Response as HttpResponse

from gateway import replies
from gateway.api.leaving import unless_left
from gateway.api.owner import owner_of
from gateway.api.responses_input import ask_for, input_items, renamed
from gateway.api.responses_output import Writer, whole
from gateway.api.responses_schemas import (
    DeletedResponse,
    InputItems,
    Response,
    ResponsesRequest,
)
from gateway.api.schemas import ErrorEnvelope
from gateway.api.streaming import EventStream, begun, noted
from gateway.services import Services
from gateway.turn import Ask, Piece, Turn
from kiki.errors import StoreError, UnknownResponseError
from memory.response_log import StoredResponse

log = logging.getLogger("kiki.gateway")
router = APIRouter()

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope} for status in (400, 404, 500, 502, 503)
}
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorEnvelope}}


@router.post(
    "/v1/responses",
    response_model=Response,
    responses={**_ERRORS, 200: {"content": {"text/event-stream": {}}}},
)
async def create(request: Request, body: ResponsesRequest) -> HttpResponse:
    """Answer; kept for thirty days unless ``store`` is false, to go on from or to fetch."""
    services: Services = request.app.state.services
    request.state.model = services.models.label(body.model)
    before = await _before(services, body)
    ask = ask_for(
        body,
        before,
        services=services,
        request_id=request.state.request_id.replace("chatcmpl-", "resp_"),
        received=request.state.received,
    )
    answer = _streamed if body.stream else _plain
    return await unless_left(request, answer(services, body, ask))


@router.get("/v1/responses/{response_id}", response_model=Response, responses=_MISSING)
async def fetch(request: Request, response_id: str) -> JSONResponse:
    """A response that was stored."""
    stored = await _stored(request, response_id)
    return JSONResponse(json.loads(stored.body))


@router.get(
    "/v1/responses/{response_id}/input_items", response_model=InputItems, responses=_MISSING
)
async def fetch_input(request: Request, response_id: str) -> InputItems:
    """What the response was asked with."""
    stored = await _stored(request, response_id)
    items = [
        {"id": f"{stored.id}_{number}", **item}
        for number, item in enumerate(json.loads(stored.input))
    ]
    ids = [str(item["id"]) for item in items]
    return InputItems(
        data=items, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None
    )


@router.post("/v1/responses/{action}", include_in_schema=False)
async def act(action: str) -> None:
    """OpenAI's compact and the like: there are none."""
    raise HTTPException(404, "Not Found")


@router.delete("/v1/responses/{response_id}", response_model=DeletedResponse, responses=_MISSING)
async def delete(request: Request, response_id: str) -> DeletedResponse:
    """Forget a response. What was remembered of the turn stays: DELETE /v1/memory takes that."""
    services: Services = request.app.state.services
    tenant = owner_of(None).tenant
    await asyncio.to_thread(services.aeon.responses.delete, tenant, response_id)
    return DeletedResponse(id=response_id)


async def _stored(request: Request, response_id: str) -> StoredResponse:
    services: Services = request.app.state.services
    tenant = owner_of(None).tenant
    return await asyncio.to_thread(services.aeon.responses.find, tenant, response_id)


async def _before(services: Services, body: ResponsesRequest) -> list[StoredResponse]:
    previous = body.previous_response_id
    if previous is None:
        return []
    try:
        return await asyncio.to_thread(services.aeon.responses.chain, owner_of(body.user), previous)
    except UnknownResponseError as error:
        error.param = "previous_response_id"
        raise


async def _plain(services: Services, body: ResponsesRequest, ask: Ask) -> HttpResponse:
    with renamed():
        turn = await services.pipeline.prepare(ask)
        async with aclosing(services.pipeline.answer(turn)) as pieces:
            async for _ in pieces:
                pass
    writer = Writer(body, ask)
    for _ in writer.take(whole(turn)):
        pass
    for _ in await _ended(services, body, turn, writer):
        pass
    headers = replies.headers(replies.explanation(turn))
    return JSONResponse(writer.response, headers=headers)


async def _streamed(services: Services, body: ResponsesRequest, ask: Ask) -> HttpResponse:
    async with AsyncExitStack() as stack:
        with renamed():
            turn = await services.pipeline.prepare(ask)
            pieces = await begun(services, turn, stack)
        headers = replies.headers(replies.explanation(turn))
        return EventStream(_events(services, body, turn, pieces), headers, stack.pop_all())


async def _events(
    services: Services,
    body: ResponsesRequest,
    turn: Turn,
    pieces: AsyncGenerator[Piece | None, None],
) -> AsyncGenerator[str, None]:
    writer = Writer(body, turn.ask)
    for event in writer.begin():
        yield event
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if piece is None:
                    yield replies.KEEP_ALIVE
                    continue
                for event in writer.take(piece):
                    yield event
    except Exception as error:
        yield writer.fail(noted(services, turn, error)["error"])
        return
    for event in await _ended(services, body, turn, writer):
        yield event


async def _ended(
    services: Services, body: ResponsesRequest, turn: Turn, writer: Writer
) -> list[str]:
    """Store the response, then give the last events: the end acknowledges it."""
    services.telemetry.count_turn(turn)
    explained = replies.visible({"kiki": replies.explanation(turn)}, body.kiki.explain)
    events = list(writer.end(turn, explained.get("kiki")))
    if body.store is not False and not await _keep(services, body, turn, writer):
        writer.response["store"] = False
    return [*events, writer.last()]


async def _keep(services: Services, body: ResponsesRequest, turn: Turn, writer: Writer) -> bool:
    items = [item.model_dump(mode="json") for item in input_items(body)]
    stored = StoredResponse(
        turn.ask.id,
        turn.ask.owner,
        body.previous_response_id,
        json.dumps(items),
        json.dumps(writer.response),
    )
    try:
        await asyncio.to_thread(services.aeon.responses.keep, stored)
    except StoreError as error:
        log.error("the response %s was not kept: %s", turn.ask.id, error)
        return False
    return True
