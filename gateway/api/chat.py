"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway import replies
from gateway.api import errors
from gateway.api.asking import ask_of, new_request_id
from gateway.api.schemas import ChatCompletion, ChatRequest, ErrorEnvelope
from gateway.services import Services
from gateway.turn import Ask, Turn
from kiki.errors import KikiError

log = logging.getLogger("kiki.gateway")
router = APIRouter()

KEEP_ALIVE_SECONDS = 5.0
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope} for status in (400, 404, 409, 500, 502, 503)
}


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={**_ERRORS, 200: {"content": {"text/event-stream": {}}}},
)
async def chat(
    request: Request,
    body: ChatRequest,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Answer a conversation; all seven stages run."""
    services: Services = request.app.state.services
    request.state.model = services.models.label(body.model)
    ask = ask_of(
        body,
        models=services.models,
        settings=services.settings,
        key=idempotency_key,
        request_id=new_request_id(),
        received=request.state.received,
    )
    explain = body.kiki.explain
    if not body.stream:
        return await _plain(services, ask, explain)
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    return await _streamed(services, ask, explain, with_usage)


async def _plain(services: Services, ask: Ask, explain: bool) -> Response:
    async with services.once.enter(ask) as kept:
        if kept is not None:
            return _replay(replies.replayed(kept), explain)
        turn = await services.pipeline.prepare(ask)
        async with aclosing(services.pipeline.answer(turn)) as pieces:
            async for _ in pieces:
                pass
        services.telemetry.count_turn(turn)
        body = replies.visible(replies.completion(turn), explain)
        return JSONResponse(body, headers=replies.headers(turn))


async def _streamed(services: Services, ask: Ask, explain: bool, with_usage: bool) -> Response:
    """Start the stream only once the first text is there, so that failures keep their status.

    A turn that is held back (panel, or under review) opens at once instead, and is kept alive.
    """
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(services.once.enter(ask))
        if kept is not None:
            return _replay_stream(replies.replayed(kept), explain, with_usage)
        turn = await services.pipeline.prepare(ask)
        pieces = await stack.enter_async_context(aclosing(services.pipeline.answer(turn)))
        first = None if turn.held else await anext(pieces, "")
        events = _events(services, turn, pieces, first, explain, with_usage)
        return EventStream(events, replies.headers(turn), stack.pop_all())


async def _events(
    services: Services,
    turn: Turn,
    pieces: AsyncGenerator[str, None],
    first: str | None,
    explain: bool,
    with_usage: bool,
) -> AsyncGenerator[str, None]:
    chunks = replies.Chunks(turn.ask.id, int(turn.ask.created), turn.ask.model)
    yield chunks.role()
    try:
        if first:
            services.telemetry.first_token_seconds.observe(time.perf_counter() - turn.ask.received)
            yield chunks.text(first)
        async for event in _kept_alive(pieces) if turn.held else pieces:
            yield event if event is replies.KEEP_ALIVE else chunks.text(event)
    except KikiError as error:
        log.error("the stream of %s broke: %s", turn.ask.id, error)
        yield f"data: {json.dumps(errors.envelope(error))}\n\n"
        return
    services.telemetry.count_turn(turn)
    kiki = replies.visible(replies.completion(turn), explain).get("kiki")
    yield chunks.end(turn.finish_reason, kiki)
    if with_usage:
        yield chunks.usage(replies.usage(turn))
    yield replies.DONE


async def _kept_alive(pieces: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    """The pieces, with a comment every five seconds while there is none."""
    while True:
        waiting = asyncio.ensure_future(anext(pieces, None))
        try:
            while not (await asyncio.wait({waiting}, timeout=KEEP_ALIVE_SECONDS))[0]:
                yield replies.KEEP_ALIVE
        finally:
            if not waiting.done():
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
        piece = waiting.result()
        if piece is None:
            return
        yield piece


def _replay(reply: dict[str, Any], explain: bool) -> Response:
    return JSONResponse(replies.visible(reply, explain), headers={"x-kiki-replayed": "true"})


def _replay_stream(reply: dict[str, Any], explain: bool, with_usage: bool) -> Response:
    async def events() -> AsyncGenerator[str, None]:
        chunks = replies.Chunks(reply["id"], reply["created"], reply["model"])
        choice = reply["choices"][0]
        yield chunks.role()
        yield chunks.text(choice["message"]["content"])
        yield chunks.end(choice["finish_reason"], replies.visible(reply, explain).get("kiki"))
        if with_usage:
            yield chunks.usage(reply["usage"])
        yield replies.DONE

    return EventStream(events(), {"x-kiki-replayed": "true"}, AsyncExitStack())


class EventStream(StreamingResponse):
    """Server-sent events; what the stream holds is let go also when the client has left."""

    def __init__(
        self, events: AsyncGenerator[str, None], headers: dict[str, str], holds: AsyncExitStack
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"} | headers
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._holds, aclosing(self._events):
            await super().__call__(scope, receive, send)
