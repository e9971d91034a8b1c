"""A server with vLLM's endpoints and no model: for faults that the real one can't be told to have.

Its answer is its model's name in pieces, so that a test sees which adapter answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

BASE = "base-model"


class ScriptedVllm:
    """Counts what it is asked. The attributes up to ``gates`` make it fail or wait.

    ``loading`` and ``answering`` are gates: clear one, and it waits there until it is set.
    """

    def __init__(self) -> None:
        self.load_failure: tuple[int, str] | None = None
        self.chat_failure: tuple[int, str] | None = None
        self.version = "0.32.0"
        self.probe_works = True
        self.pieces_before_death: int | None = None
        self.raw_chat: bytes | None = None
        self.loading = asyncio.Event()
        self.answering = asyncio.Event()
        self.loading.set()
        self.answering.set()
        self.adapters: dict[str, str] = {}
        self.loads: Counter[str] = Counter()
        self.unloads: Counter[str] = Counter()
        self.chats: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.open_chats = 0
        self.most_chats = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self._port, limit=1_000_000
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """As a killed process: every connection breaks, and all that was loaded is lost."""
        assert self._server
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self.adapters.clear()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.headers.append(head)
            method, path = head.split()[:2]
            length = next(
                (int(line[15:]) for line in head.lower().split("\r\n") if "content-length" in line),
                0,
            )
            body = json.loads(await reader.readexactly(length)) if length else {}
            await self._answer(method, path, body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, method: str, path: str, body: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        if path == "/v1/models":
            cards = [{"id": BASE, "max_model_len": 1024, "parent": None, "root": BASE}]
            cards += [{"id": n, "parent": BASE, "root": p} for n, p in self.adapters.items()]
            await _reply(writer, 200, {"data": cards})
        elif path == "/v1/load_lora_adapter":
            await self._load(body, writer)
        elif path == "/v1/unload_lora_adapter":
            self.unloads[body["lora_name"]] += 1
            found = self.adapters.pop(body["lora_name"], None)
            await _reply(writer, 200 if found else 404, "Success")
        elif path == "/version":
            await _reply(writer, 200, {"version": self.version})
        elif path == "/tokenize":
            await _reply(writer, 200, {"count": 4321, "max_model_len": 1024})
        elif path == "/v1/chat/completions":
            await self._chat(body, writer)
        else:
            await _reply(writer, 404, {"detail": "Not Found"})

    async def _load(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        name = body["lora_name"]
        self.loads[name] += 1
        await self.loading.wait()
        if self.load_failure:
            await _refuse(writer, *self.load_failure)
        elif name in self.adapters:
            await _refuse(writer, 400, f"The lora adapter '{name}' has already been loaded.")
        else:
            self.adapters[name] = body["lora_path"]
            await _reply(writer, 200, f"Success: LoRA adapter '{name}' added successfully.")

    async def _chat(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        model = body["model"]
        if not body.get("stream"):  # a probe
            usage = {"prompt_tokens": 1, "completion_tokens": 1}
            await _reply(writer, 200, {"usage": usage}) if self.probe_works else await _refuse(
                writer, 500, "EngineCore encountered an issue."
            )
            return
        self.chats[model] += 1
        self.bodies.append(body)
        if model != BASE and model not in self.adapters:
            await _refuse(writer, 404, f"The model `{model}` does not exist.")
        elif self.raw_chat is not None:
            writer.write(self.raw_chat)
            await writer.drain()
        elif self.chat_failure:
            await _refuse(writer, *self.chat_failure)
        else:
            async with self._counted():
                await self._stream(model, writer)

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.open_chats += 1
        self.most_chats = max(self.most_chats, self.open_chats)
        try:
            yield
        finally:
            self.open_chats -= 1

    async def _stream(self, model: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Connection: close\r\n\r\n")
        pieces = [model[start : start + 4] for start in range(0, len(model), 4)]
        for number, piece in enumerate(pieces):
            if number == self.pieces_before_death:
                writer.transport.abort()
                return
            await _chunk(writer, {"choices": [{"delta": {"content": piece}}]})
            if number == 0:
                await self._wait_for_gate(writer)
        await _chunk(writer, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 3, "completion_tokens": len(pieces)}
        await _chunk(writer, {"choices": [], "usage": usage})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _wait_for_gate(self, writer: asyncio.StreamWriter) -> None:
        while not self.answering.is_set():
            if writer.transport.is_closing():
                raise ConnectionResetError
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await self.answering.wait()
            writer.write(b": waiting\n\n")
            await writer.drain()


async def _chunk(writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
    writer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, status: int, message: str) -> None:
    error = {"message": message, "type": "Error", "code": status}
    await _reply(writer, status, {"error": error})


async def _reply(writer: asyncio.StreamWriter, status: int, answer: object) -> None:
    body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
