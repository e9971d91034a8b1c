"""HTTP to a server: kept connections for chats, a new one for each other request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

CONNECT_TIMEOUT = 2.0
# A server drops connections that are idle for long (vLLM after 5 s), perhaps just when one is
# used again; those that are about to be dropped aren't kept.
KEEP_S = 2.0
TRANSPORT_ERRORS = (aiohttp.ClientError, ConnectionError)
"""The connection broke, was refused, timed out, or carried something that isn't HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Raises ValueError where the body is no JSON."""
        return json.loads(self.body)


class Connection:
    """A client of one server. ``token_timeout`` is how long a chat may give no byte, in seconds."""

    def __init__(self, api_key: str | None, token_timeout: float) -> None:
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=token_timeout
        )
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._waiting: set[asyncio.Timeout] = set()
        self._streams: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def ask(
        self, method: str, url: str, body: Mapping[str, Any] | None, seconds: float
    ) -> Answer:
        """One request over a new connection. Raises TRANSPORT_ERRORS, TimeoutError."""
        data = None if body is None else json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)
        with _connecting():
            async with self._session(kept=False).request(
                method, url, data=data, headers=self._headers, timeout=timeout
            ) as response:
                return Answer(response.status, await response.read())

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, body: Mapping[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A chat whose answer is read as it comes; leaving closes its connection unless the answer
        was read to its end. Raises TRANSPORT_ERRORS, TimeoutError."""
        response = await self._open(url, json.dumps(body).encode())
        self._streams.add(response)
        try:
            yield response
        finally:
            self._streams.discard(response)
            response.release()

    def abandon(self) -> None:
        """Let every chat that is under way fail with one of TRANSPORT_ERRORS or TimeoutError."""
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            waiting.reschedule(now)
        for stream in list(self._streams):
            stream.close()

    async def _open(self, url: str, data: bytes) -> aiohttp.ClientResponse:
        try:
            return await self._post(url, data, kept=True)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection that the server has just dropped looks like this.
            return await self._post(url, data, kept=False)

    async def _post(self, url: str, data: bytes, *, kept: bool) -> aiohttp.ClientResponse:
        async with asyncio.timeout(None) as waiting:
            self._waiting.add(waiting)
            try:
                with _connecting():
                    return await self._session(kept=kept).post(
                        url, data=data, headers=self._headers
                    )
            finally:
                self._waiting.discard(waiting)

    def _session(self, *, kept: bool) -> aiohttp.ClientSession:
        """Made in the loop that uses it, when it is first used."""
        if kept not in self._sessions:
            connector = (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_S)
                if kept
                else aiohttp.TCPConnector(limit=0, force_close=True)
            )
            self._sessions[kept] = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._sessions[kept]


@contextlib.contextmanager
def _connecting() -> Iterator[None]:
    """A server that takes no connection is gone, not slow."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise ConnectionError(f"no connection in {CONNECT_TIMEOUT:.0f} s") from error
