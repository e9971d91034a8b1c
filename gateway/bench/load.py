"""Requests in a process of their own: ``python -m gateway.bench.load``.

Reads a ``Job`` a line from stdin as JSON, and prints a ``Load`` a line. Connections are plain
protocols with the request made once, so that the load costs little beside what it measures.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from gateway.bench.loops import run

_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)", re.IGNORECASE)
_STAMP = re.compile(rb'"content": ?"(\d+) ?"')
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Job:
    """``connections`` ask one after the other: each ``requests`` times, or for ``seconds``."""

    url: str
    body: str
    connections: int = 1
    requests: int | None = None
    seconds: float = 0.0
    headers: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """``p50_ms`` is a request's time; ``token_us`` a token's, from the stub to here, and None
    where no token came alone. ``seconds`` is from the first request to the last answer."""

    requests: int
    seconds: float
    p50_ms: float
    tokens: int
    token_us: float | None


class _Caller(asyncio.Protocol):
    """One connection. It ends when it has asked often enough, or the time is up."""

    def __init__(self, job: Job, until: float) -> None:
        address = urlsplit(job.url)
        body = job.body.encode()
        head = (
            f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n{job.headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._until = until
        self._left = job.requests
        self._received = bytearray()
        self._expected: int | None = None
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self.times: list[float] = []
        self.token_ns: list[int] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(f"the server hung up: {exc}"))

    def data_received(self, data: bytes) -> None:
        stamps = _STAMP.findall(data)
        if stamps:
            at = time.perf_counter_ns()
            self.token_ns += [at - int(stamp) for stamp in stamps]
        self._received += data
        if self._is_whole():
            self._done()

    def _is_whole(self) -> bool:
        if self._expected is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            if not self._received.startswith(b"HTTP/1.1 200"):
                self._fail()
                return False
            length = _LENGTH.search(self._received, 0, end)
            self._expected = end + 4 + int(length[1]) if length else 0
        if self._expected:
            return len(self._received) >= self._expected
        return self._received.endswith(_END_OF_CHUNKS)

    def _fail(self) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(self._received[:400].decode(errors="replace")))

    def _ask(self) -> None:
        assert self._transport
        self._received.clear()
        self._expected = None
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def _done(self) -> None:
        now = time.perf_counter()
        self.times.append(now - self._began)
        if self._left is not None:
            self._left -= 1
        if self._left == 0 or (self._left is None and now > self._until):
            assert self._transport
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._ask()


async def load(job: Job) -> Load:
    """Do the job. Raises RuntimeError with an answer that isn't 200, ConnectionError."""
    began = time.perf_counter()
    callers = [await _connect(job, began + job.seconds) for _ in range(job.connections)]
    await asyncio.gather(*(caller.ended for caller in callers))
    seconds = time.perf_counter() - began
    times = [one for caller in callers for one in caller.times]
    tokens = [one for caller in callers for one in caller.token_ns]
    return Load(
        requests=len(times),
        seconds=seconds,
        p50_ms=statistics.median(times) * 1e3,
        tokens=len(tokens),
        token_us=statistics.median(tokens) / 1e3 if tokens else None,
    )


async def _connect(job: Job, until: float) -> _Caller:
    address = urlsplit(job.url)
    loop = asyncio.get_running_loop()
    host, port = address.hostname or "127.0.0.1", address.port or 80
    _, caller = await loop.create_connection(partial(_Caller, job, until), host, port)
    return caller


async def _main() -> None:
    for line in sys.stdin:
        try:
            answer = asdict(await load(Job(**json.loads(line))))
        except (RuntimeError, ConnectionError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    run(_main())
