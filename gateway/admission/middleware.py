"""Draining, the limits of a key, and the time that a request may take."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.visit import current_visit
from gateway.admission.draining import Drain
from gateway.admission.limits import Allowance, Allowances
from gateway.admission_settings import AdmissionSettings
from gateway.api import errors
from gateway.telemetry import Telemetry
from kiki.errors import (
    BodyTooLargeError,
    DeadlineError,
    DrainingError,
    KikiError,
    RequestError,
)

log = logging.getLogger("kiki.gateway")

TIMEOUT_HEADER = b"x-request-timeout"
_WHILE_DRAINING = ("/health/live", "/metrics")
_OF_ANY_SIZE = ("/v1/memory/import",)


class AdmissionMiddleware:
    """Refuses with 429 or 503 before anything is read; ends with 504 what takes too long."""

    def __init__(
        self, app: ASGIApp, settings: AdmissionSettings, drain: Drain, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._settings = settings
        self._drain = drain
        self._telemetry = telemetry
        self._allowances = Allowances(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = current_visit.get()
        if scope["type"] != "http" or visit is None:
            await self._app(scope, receive, send)
            return
        key = visit.caller.key
        allowance = self._allowances.of(key) if key else None
        answer = _Answer(send, allowance)
        with ExitStack() as stack:
            try:
                headers = dict(scope["headers"])
                seconds = self._seconds(headers)
                body = self._bounded(scope["path"], headers, receive)
                if self._drain.begun and scope["path"] not in _WHILE_DRAINING:
                    raise DrainingError("The gateway is stopping.", fix="Ask another, or wait.")
                if key and allowance:
                    stack.enter_context(allowance.request(key.name))
            except KikiError as error:
                self._telemetry.rejections.labels(error.code).inc()
                await errors.response(error)(scope, receive, answer.send)
                return
            stack.enter_context(self._drain.request())
            try:
                await self._timed(scope, body, answer, seconds)
            finally:
                if allowance:
                    allowance.spend(visit.tokens)

    def _bounded(self, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        """The body, refused by what it says of itself, else counted as it comes in."""
        most = self._settings.max_body
        if path in _OF_ANY_SIZE:
            return receive
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            if int(length) > most:
                raise BodyTooLargeError(
                    f"The body has {int(length)} bytes; it may have {int(most)}.",
                    param="body",
                    fix="Send less, or raise max_body.",
                )
            return receive
        return _counted(receive, most)

    def _seconds(self, headers: Mapping[bytes, bytes]) -> float:
        most = self._settings.request_timeout
        asked = headers.get(TIMEOUT_HEADER)
        if asked is None:
            return most
        try:
            seconds = float(asked)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= most:
            raise RequestError(
                f"x-request-timeout takes seconds, more than 0 and at most {most:g}.",
                param="x-request-timeout",
            )
        return seconds

    async def _timed(self, scope: Scope, receive: Receive, answer: _Answer, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds) as deadline:
                await self._app(scope, receive, answer.send)
        except TimeoutError:
            if not deadline.expired():
                raise
            error = DeadlineError(
                f"The request took longer than the {seconds:g} s that it may.",
                fix="Ask for fewer tokens, or allow more time.",
            )
            self._telemetry.rejections.labels(error.code).inc()
            await answer.end(error, scope, receive)


def _counted(receive: Receive, most: int) -> Receive:
    """As ``receive``. Raises starlette's HTTPException, the one error that FastAPI lets through
    while it reads a body."""
    size = 0

    async def counting() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise HTTPException(413, f"The body has over {most} bytes")
        return message

    return counting


class _Answer:
    """What has been sent of an answer, so that it can be ended as it began."""

    def __init__(self, send: Send, allowance: Allowance | None) -> None:
        self._send = send
        self._allowance = allowance
        self._begun = False
        self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            self._begun = True
            self._events = headers.get("content-type", "").startswith("text/event-stream")
            for name, text in self._allowance.headers() if self._allowance else ():
                headers[name] = text
        await self._send(message)

    async def end(self, error: KikiError, scope: Scope, receive: Receive) -> None:
        """A whole response, or the last event of a stream; what else has begun breaks off."""
        if not self._begun:
            await errors.response(error)(scope, receive, self.send)
        elif self._events:
            event = f"data: {json.dumps(errors.envelope(error))}\n\n".encode()
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            raise error
