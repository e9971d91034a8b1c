"""Clients that leave before their answer is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from fastapi import Request, Response

from adapters.engines.tasks import end_tasks

log = logging.getLogger("kiki.gateway")

# Nobody reads it; it is what proxies log for a client that closed the connection.
CLIENT_LEFT = 499


async def unless_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work; when the client leaves first, cancel it, and its generation with it."""
    running = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        log.info("the client of %s left", request.state.request_id)
        return Response(status_code=CLIENT_LEFT)
    finally:
        await end_tasks({running, leaving})


async def _left(request: Request) -> None:
    """The body has been read, so the next message is that the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
