"""What happens to every request first and last: it gets an id, is counted, timed and logged."""

from __future__ import annotations

import logging
import secrets
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.visit import Visit, current_visit
from gateway.api.errors import log_failure, own_error
from gateway.telemetry import Telemetry

log = logging.getLogger("kiki.requests")


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
        parent = Headers(scope=scope).get("traceparent")
        visit = Visit(request_id, traceparent=parent)
        entered = current_visit.set(visit)
        status = 500
        begun = False

        async def watch(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                begun = True
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:  # here, where the log and the answer still have the id
            log_failure(scope, error)
            if begun:
                raise
            await own_error()(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - received
            model = state.get("model", "unknown")
            self._telemetry.count_request(scope["path"], model, status, seconds)
            _log(scope, status, seconds, visit)
            current_visit.reset(entered)


def _log(scope: Scope, status: int, seconds: float, visit: Visit) -> None:
    """The line of a request. Its query is left out: it may hold a question, or whose memory."""
    path = scope["path"]
    # Probes come every few seconds, and say nothing.
    level = logging.DEBUG if path.startswith(("/health", "/metrics")) else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields = {
        "method": scope["method"],
        "path": quote(path),
        "status": status,
        "ms": round(seconds * 1e3, 1),
        "tenant": visit.caller.tenant,
        "tokens": visit.tokens,
    }
    text = "%(method)s %(path)s %(status)d %(ms).1f ms, tenant %(tenant)s, %(tokens)d tokens"
    log.log(level, text, fields, extra={"fields": fields})


def new_id(kind: str) -> str:
    """Sortable by time, as the memory's episode ids have to be."""
    return f"{kind}-{time.time_ns():016x}{secrets.token_hex(8)}"
