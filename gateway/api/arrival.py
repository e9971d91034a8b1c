"""What happens to every request first: it gets an id, and a chat request is counted and timed."""

from __future__ import annotations

import secrets
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.telemetry import Telemetry

CHAT_PATH = "/v1/chat/completions"


class ArrivalMiddleware:
    """Puts ``request_id`` and ``received`` into the request's state; chat adds its ``model``."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = time.perf_counter()
        state = scope.setdefault("state", {})
        state["received"] = received
        state["request_id"] = request_id = new_id("chatcmpl")
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if scope["path"] == CHAT_PATH:
                self._telemetry.requests.labels(state.get("model", "unknown"), str(status)).inc()
                self._telemetry.duration_seconds.observe(time.perf_counter() - received)


def new_id(kind: str) -> str:
    """Sortable by time, as the memory's episode ids have to be."""
    return f"{kind}-{time.time_ns():016x}{secrets.token_hex(8)}"
