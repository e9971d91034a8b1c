"""An OpenAI-compatible server with one fault, for judges that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Fault = Literal["junk", "no body", "an error", "silence", "hang up"]


@asynccontextmanager
async def upstream(fault: Fault | None, content: str = "") -> AsyncIterator[str]:
    """Its URL with /v1. Without a fault each completion is ``content``."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.split(b"\r\n") if b"content-length" in x.lower()),
            0,
        )
        await reader.readexactly(length)
        if fault == "silence":
            await reader.read()
        elif fault != "hang up":
            status, body = _reply(head, fault, content)
            line = (
                f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            writer.write(line.encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.close()


def _reply(head: bytes, fault: Fault | None, content: str) -> tuple[int, bytes]:
    if b"/models" in head.split(b"\r\n")[0]:
        return 200, json.dumps({"data": [{"id": "judge-1"}]}).encode()
    if fault == "an error":
        return 500, b'{"error": {"message": "out of memory"}}'
    if fault == "no body":
        return 200, b"{}"
    said = "junk" if fault == "junk" else content
    message = {"role": "assistant", "content": said}
    return 200, json.dumps(
        {"choices": [{"message": message}], "usage": {"total_tokens": 7}}
    ).encode()
