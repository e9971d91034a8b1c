"""Connections that can't be held open by sending, or reading, a little at a time.

uvicorn limits neither how slowly a request arrives ("slowloris") nor how slowly an answer is
read, and its C parser takes a head of any size.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger("kiki.gateway")

MAX_HEAD = 65_536
"""Bytes of a request's first line and headers."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: until a request must be there, and that an answer may wait for its reader."""

    arrival_s: float
    stall_s: float


def protocol(patience: Patience) -> type[HttpToolsProtocol]:
    """The class that uvicorn makes one of for each connection."""

    class Bound(_PatientProtocol):
        pass

    Bound.patience = patience
    return Bound


class _PatientProtocol(HttpToolsProtocol):
    patience: Patience
    _arriving: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head: int | None = 0
    """Bytes of the head so far, None once it is whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            if self._head > MAX_HEAD:
                self._refuse(431, "The request's head is too large.", "head_too_large")
                return
            self._head += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stop_expecting()
        self._expect_request()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_expecting()
        self._head = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.patience.stall_s, self._on_stall)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _expect_request(self) -> None:
        self._arriving = self.loop.call_later(self.patience.arrival_s, self._on_late_request)

    def _stop_expecting(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _on_late_request(self) -> None:
        self._arriving = None
        if self._head == 0:  # nobody asked anything
            self.transport.close()
            return
        message = f"The request did not arrive in {self.patience.arrival_s:g} s."
        self._refuse(408, message, "request_timeout")

    def _on_stall(self) -> None:
        self._stalled = None
        log.info("an answer was not read for %g s: its connection is cut", self.patience.stall_s)
        self.transport.abort()

    def _refuse(self, status: int, message: str, code: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(_answer(status, message, code))
            self.transport.close()


def _answer(status: int, message: str, code: str) -> bytes:
    """A whole response: the parser has no request yet that a handler could answer."""
    kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    reason = {408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def allow_many_connections() -> None:
    """Raise the process's limit of open files to what the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # macOS has a lower limit than it says
            log.info("the limit of open files stays at %d: %s", soft, error)
