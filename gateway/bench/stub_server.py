"""A server with vLLM's endpoints and no model: ``python -m gateway.bench.stub_server [PORT]``.

Prints its address and answers until it is killed. An answer has ``max_tokens`` tokens; each is the
time at which it was sent, in nanoseconds of ``time.perf_counter``, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

from gateway.bench.loops import run

MODEL = "stub"
PACED = "Take your time."
"""To this prompt the tokens come one at a time, ``PACE_S`` apart; to others all at once."""
PACE_S = 0.001
SETTINGS = {
    "engine": "vllm",
    "model": "kiki/stub",
    "vllm_on_cpu": "false",  # the stub needs no adapter that adds nothing
}
"""What a gateway in front of it needs, beside ``vllm_urls``."""

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_CHUNK = (
    'data: {"id":"chatcmpl-8f14e45fceea167a5a36dedd4bea2543","object":"chat.completion.chunk",'
    '"created":1764000000,"model":"stub","choices":[{"index":0,"delta":%s,"logprobs":null,'
    '"finish_reason":%s,"token_ids":null}]}\n\n'
)
_END = "data: [DONE]\n\n"


class StubProtocol(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._pacing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pacing:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        self._received = rest[length:]
        path = head.split(b" ", 2)[1].decode()
        self._answer(path, json.loads(rest[:length]) if length else {})

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        if path == "/v1/models":
            card = {"id": MODEL, "object": "model", "max_model_len": 8192, "parent": None}
            self._reply({"object": "list", "data": [card]})
        elif path == "/version":
            self._reply({"version": "0.32.0"})
        elif path != "/v1/chat/completions":
            self._write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif not body.get("stream"):
            self._reply(_completion(int(body.get("max_tokens") or 16)))
        elif body["messages"][-1]["content"] == PACED:
            self._pacing = asyncio.create_task(self._pace(body))
        else:
            self._write(_STREAM + b"".join(map(_framed, _events(body))))

    async def _pace(self, body: dict[str, Any]) -> None:
        self._write(_STREAM)
        for event in _events(body):
            self._write(_framed(event))
            await asyncio.sleep(PACE_S)

    def _reply(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self._write(_HEAD % len(body) + body)

    def _write(self, data: bytes) -> None:
        assert self._transport
        self._transport.write(data)


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def _completion(tokens: int) -> dict[str, Any]:
    text = " ".join(_stamp() for _ in range(tokens))
    return {
        "id": "chatcmpl-8f14e45fceea167a5a36dedd4bea2543",
        "object": "chat.completion",
        "created": 1764000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": _usage(tokens),
    }


def _events(body: dict[str, Any]) -> Iterator[str]:
    """The stream's events; each is made when it is sent."""
    tokens = int(body.get("max_tokens") or 16)
    yield _CHUNK % ('{"role":"assistant","content":""}', "null")
    for _ in range(tokens):
        yield _CHUNK % (f'{{"content":"{_stamp()} "}}', "null")
    yield _CHUNK % ("{}", '"length"')
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(tokens)}
        yield f"data: {json.dumps(usage)}\n\n"
    yield _END


def _framed(event: str) -> bytes:
    """As a chunk of HTTP's chunked transfer; after the last event comes the end of the body."""
    data = event.encode()
    end = b"0\r\n\r\n" if event is _END else b""
    return b"%x\r\n%b\r\n%b" % (len(data), data, end)


def _stamp() -> str:
    return str(time.perf_counter_ns())


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(StubProtocol, "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
