"""A proxy that does nothing else: ``python -m gateway.bench.bare_proxy UPSTREAM``.

The same HTTP server, event loop and client library as the gateway's; every request goes to the
upstream as it came, every byte of the answer comes back as it came. Prints its address.
"""

from __future__ import annotations

import socket
import sys

import aiohttp
import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.bench.loops import run


class BareProxy:
    """The ASGI application."""

    def __init__(self, upstream: str, client: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        url = self._upstream + scope["path"]
        headers = {"content-type": "application/json"}
        async with self._client.request(
            scope["method"], url, data=body or None, headers=headers
        ) as answer:
            kind = answer.headers.get("content-type", "")
            headers_out = [(b"content-type", kind.encode())]
            if length := answer.headers.get("content-length"):
                headers_out.append((b"content-length", length.encode()))
            await send(
                {"type": "http.response.start", "status": answer.status, "headers": headers_out}
            )
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def _serve(upstream: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        config = uvicorn.Config(
            BareProxy(upstream, client), log_config=None, access_log=False, lifespan="off"
        )
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    run(_serve(sys.argv[1]))
