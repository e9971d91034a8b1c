"""A chat answer as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from adapters.engines.tasks import end_tasks
from gateway import replies
from gateway.api import errors
from gateway.services import Services
from gateway.turn import Ask, Piece, Turn
from kiki.errors import KikiError

log = logging.getLogger("kiki.gateway")

KEEP_ALIVE_S = 5.0
# How long a turn that is held back may fail with a status of its own, before its stream opens.
OPEN_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the client wants beside the text."""

    explain: bool
    usage: bool


async def streamed(services: Services, ask: Ask, wishes: Wishes) -> Response:
    """Start the stream once the first text is there, so that failures keep their status.

    A turn that is held back (a panel, or under review) opens early instead, and is kept alive.
    """
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(services.once.enter(ask))
        if kept is not None:
            return replay_stream(replies.replayed(kept), wishes)
        turn = await services.pipeline.prepare(ask)
        pieces = await begun(services, turn, stack)
        headers = replies.headers(replies.explanation(turn))
        return EventStream(_events(services, turn, pieces, wishes), headers, stack.pop_all())


async def begun(
    services: Services, turn: Turn, stack: AsyncExitStack
) -> AsyncGenerator[Piece | None, None]:
    """The pieces of a turn that has begun: the first is there, unless the turn is held back.

    None is a sign that it goes on. What runs ends with ``stack``.
    """
    pieces = await stack.enter_async_context(aclosing(services.pipeline.answer(turn)))
    first = asyncio.create_task(_next(pieces))
    stack.push_async_callback(end_tasks, {first})
    await asyncio.wait({first}, timeout=OPEN_AFTER_S if turn.held else None)
    if first.done():
        first.result()
    return _kept_alive(first, pieces) if turn.held else _in_order(first, pieces)


async def _events(
    services: Services, turn: Turn, pieces: AsyncGenerator[Piece | None, None], wishes: Wishes
) -> AsyncGenerator[str, None]:
    chunks = replies.Chunks(turn.ask.id, int(turn.ask.created), turn.ask.model)
    for number in range(turn.ask.choices):
        yield chunks.role(number)
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if piece is None:
                    yield replies.KEEP_ALIVE
                    continue
                yield chunks.piece(piece)
    except Exception as error:
        yield broken(services, turn, error)
        return
    services.telemetry.count_turn(turn)
    kiki = replies.visible({"kiki": replies.explanation(turn)}, wishes.explain).get("kiki")
    choices = turn.choices
    for number, choice in enumerate(choices):
        last = number == len(choices) - 1
        yield chunks.end(choice.finish_reason, kiki if last else None, number)
    if wishes.usage:
        yield chunks.usage(replies.usage(turn))
    yield replies.DONE


async def _in_order(
    first: asyncio.Task[Piece | None], pieces: AsyncIterator[Piece]
) -> AsyncGenerator[Piece | None, None]:
    piece = await first
    if piece is not None:
        yield piece
        async for piece in pieces:
            yield piece


async def _kept_alive(
    first: asyncio.Task[Piece | None], pieces: AsyncIterator[Piece]
) -> AsyncGenerator[Piece | None, None]:
    """The pieces, with None every five seconds while there is none."""
    waiting = first
    try:
        while True:
            while not (await asyncio.wait({waiting}, timeout=KEEP_ALIVE_S))[0]:
                yield None
            piece = waiting.result()
            if piece is None:
                return
            yield piece
            waiting = asyncio.create_task(_next(pieces))
    finally:
        await end_tasks({waiting})


async def _next(pieces: AsyncIterator[Piece]) -> Piece | None:
    return await anext(pieces, None)


def replay_stream(reply: dict[str, Any], wishes: Wishes) -> Response:
    """A kept reply as a stream of one piece."""

    async def events() -> AsyncGenerator[str, None]:
        chunks = replies.Chunks(reply["id"], reply["created"], reply["model"])
        kiki = replies.visible(reply, wishes.explain).get("kiki")
        last = reply["choices"][-1]["index"]
        for choice in reply["choices"]:
            number = choice["index"]
            yield chunks.role(number)
            yield chunks.whole(choice)
            yield chunks.end(choice["finish_reason"], kiki if number == last else None, number)
        if wishes.usage:
            yield chunks.usage(reply["usage"])
        yield replies.DONE

    headers = replies.headers(reply["kiki"]) | {"x-kiki-replayed": "true"}
    return EventStream(events(), headers, AsyncExitStack())


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


def broken(services: Services, turn: Turn, error: Exception) -> str:
    """Note that a stream breaks; returns the event that says why. No ``[DONE]`` follows it."""
    return _error_event(noted(services, turn, error))


def noted(services: Services, turn: Turn, error: Exception) -> dict[str, Any]:
    """Log and count a stream that breaks; returns the error's envelope."""
    code, body = "internal_error", errors.OWN_ERROR
    if isinstance(error, KikiError):
        code, body = error.code, errors.envelope(error)
        log.error("the stream of %s broke: %s", turn.ask.id, error)
    else:
        log.error("the stream of %s broke", turn.ask.id, exc_info=error)
    services.telemetry.broken_streams.labels(code).inc()
    return body


def _error_event(body: dict[str, object]) -> str:
    return f"data: {json.dumps(body)}\n\n"
