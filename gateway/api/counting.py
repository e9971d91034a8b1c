"""Counts chat requests by model and status, and times them to their last byte."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.telemetry import Telemetry

CHAT_PATH = "/v1/chat/completions"


class CountingMiddleware:
    """Puts the time of arrival into the request's state; the endpoint adds the model's name."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != CHAT_PATH:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        state = scope.setdefault("state", {})
        state["received"] = began
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            self._telemetry.requests.labels(state.get("model", "unknown"), str(status)).inc()
            self._telemetry.duration_seconds.observe(time.perf_counter() - began)
