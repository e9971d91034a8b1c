"""Clients that leave before their answer is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from fastapi import Request, Response

log = logging.getLogger("kiki.gateway")

# Nobody reads it; it is what proxies log for a client that closed the connection.
CLIENT_LEFT = 499


async def unless_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work; when the client leaves first, cancel it, and its generation with it."""
    working = asyncio.current_task()
    assert working
    watching = asyncio.create_task(_cancel_when_left(request, working))
    try:
        return await work
    except asyncio.CancelledError:
        if not watching.done():  # another wants it to end
            raise
        working.uncancel()
        log.info("the client of %s left", request.state.request_id)
        return Response(status_code=CLIENT_LEFT)
    finally:
        watching.cancel()


async def _cancel_when_left(request: Request, working: asyncio.Task[Any]) -> None:
    """The body has been read, so the next message is that the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    working.cancel()
