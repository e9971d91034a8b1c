"""One llama.cpp process with the adapters that it loaded, and the rows that it serves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import anyio
import httpx

from adapters.engines.base import (
    Delta,
    EngineState,
    GenerateRequest,
    Message,
    Sampling,
    Token,
    Usage,
)
from adapters.engines.child import Child
from adapters.engines.llamacpp.files import AdapterSet
from adapters.engines.llamacpp.server import ServerSpec
from adapters.engines.llamacpp.template import Template
from adapters.engines.llamacpp.turns import Turns
from adapters.engines.openai_wire import (
    CHAT,
    blamed,
    calls_of,
    error_of,
    events,
    finish_of,
    logprobs_of,
    path_of,
    prompt_fields,
    sampling_fields,
    usage_of,
)
from adapters.engines.rows import together
from adapters.mix import Mix
from kiki.errors import (
    EngineError,
    EngineUnavailableError,
    PromptTooLongError,
    RequestError,
    UnknownAdapterError,
)

HANGS_AFTER = 300.0
"""Seconds: more than a batch of a long prompt takes a slow CPU."""


class Replica:
    """A server whose adapters never change; an engine with another set starts another one.

    Adapter ids are places in ``adapters.files``. Every request names every adapter with its
    scale: llama.cpp takes a list that is left out for "as the last request had it" and would hand
    over that request's cache (ggml-org/llama.cpp#26207).
    """

    def __init__(self, adapters: AdapterSet, spec: ServerSpec, *, start_timeout: float) -> None:
        self.adapters = adapters
        self.child = Child(
            spec.program(), self._probe, alive=self._alive, start_timeout=start_timeout
        )
        self.last_delta = float("-inf")
        self.template = Template()
        self._context_tokens = spec.context_tokens
        self._ids = {name: number for number, name in enumerate(adapters.files)}
        self._turns = Turns(spec.slots)
        self._unfinished: set[object] = set()
        self._idle = asyncio.Event()
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(300.0, connect=2.0),
            # A kept connection may be dropped by the server just when it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )

    @property
    def state(self) -> EngineState:
        return self.child.state

    async def start(self) -> None:
        """Raises EngineUnavailableError; nothing of it is left then."""
        try:
            await self.child.start()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.stop()
            raise

    async def stop(self) -> None:
        await self.child.stop()
        await self._client.aclose()
        self.adapters.release()

    async def drained(self) -> None:
        """Return when no row is in flight, whether its answer was read or not."""
        while self._unfinished:
            self._idle.clear()
            await self._idle.wait()

    async def ready(self) -> bool:
        return self.state == "ready" and await self._probe(self.child.url)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        bodies = [self._body(request) for request in requests]
        if self.state != "ready":
            raise self._unavailable()
        marks = [object() for _ in requests]
        self._unfinished.update(marks)
        try:
            rows = [
                self._marked(mark, self._row(row, request, body))
                for row, (mark, request, body) in enumerate(
                    zip(marks, requests, bodies, strict=True)
                )
            ]
            async with aclosing(together(rows)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:  # a row that is cancelled before its first step doesn't take its mark away
            self._finish(*marks)

    async def _marked(
        self, mark: object, row: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[Delta, None]:
        try:
            async with aclosing(row):
                async for delta in row:
                    yield delta
        finally:
            self._finish(mark)

    def _finish(self, *marks: object) -> None:
        self._unfinished.difference_update(marks)
        if not self._unfinished:
            self._idle.set()

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        body = {
            **prompt_fields(request),
            "lora": self._scales(request.mix),
            "cache_prompt": _is_conversation(request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "reasoning_format": "none",
            **sampling_fields(request.sampling),
        }
        if request.sampling.presence_penalty or request.sampling.frequency_penalty:
            body["repeat_last_n"] = self._context_tokens  # not the last 64 tokens alone
        if request.prompt is not None and "top_logprobs" in body:
            body["logprobs"] = body.pop("top_logprobs")
        return body

    def _scales(self, mix: Mix) -> list[dict[str, float]]:
        weights = dict(mix.weights)
        unknown = [name for name in weights if name not in self._ids]
        if unknown:
            raise UnknownAdapterError(
                f"The engine has no adapter {unknown[0]!r}.",
                param=f"kiki.adapters.{unknown[0]}",
                fix=f"Loaded: {', '.join(self._ids) or 'none'}.",
            )
        return [{"id": i, "scale": weights.get(name, 0.0)} for name, i in self._ids.items()]

    async def _row(
        self, row: int, request: GenerateRequest, body: dict[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        finish: str | None = None
        usage = Usage()
        path = path_of(request)
        async with self._turns.turn(request.mix), self._stream(path, body) as chunks:
            async for chunk in events(chunks):
                if "error" in chunk:
                    raise _engine_error(chunk["error"], body)
                if chunk.get("usage"):
                    usage = usage_of(chunk["usage"])
                for choice in chunk["choices"]:
                    finish = choice["finish_reason"] or finish
                    delta = choice.get("delta") or {}
                    text = delta.get("content") or choice.get("text") or ""
                    calls = calls_of(delta)
                    logprobs = logprobs_of(choice.get("logprobs"))
                    self.last_delta = time.monotonic()
                    if text or logprobs or calls:
                        yield Delta(row, text, logprobs, calls=calls)
        if finish is None:
            raise EngineUnavailableError("The engine ended in the middle of the answer.")
        yield Delta(row, finish_reason=finish_of(finish), usage=usage)

    @contextlib.asynccontextmanager
    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            async with self._client.stream("POST", self.child.url + path, json=body) as response:
                if response.status_code != 200:
                    raise _engine_error(error_of(await response.aread()), body)
                yield response.aiter_bytes()
        except httpx.ReadTimeout as error:
            raise EngineError("The engine gave no token for 300 s.") from error
        except httpx.TransportError as error:
            raise self._unavailable() from error

    async def tokenize(self, request: GenerateRequest, *, answer: bool) -> list[Token]:
        if self.state != "ready":
            raise self._unavailable()
        try:
            text = request.prompt
            if text is None:
                rendered = await self._post(
                    "/apply-template", prompt_fields(request) | {"add_generation_prompt": answer}
                )
                text = str(rendered["prompt"])
            # A template writes its own opening token.
            fields = {"content": text, "add_special": request.prompt is not None}
            found = await self._post("/tokenize", fields | {"with_pieces": True})
        except httpx.TransportError as error:
            raise self._unavailable() from error
        return [Token(token["id"], _piece(token["piece"])) for token in found["tokens"]]

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._client.post(self.child.url + path, json=body)
        if response.status_code != 200:
            raise _engine_error(error_of(response.content), body)
        answer: dict[str, Any] = response.json()
        return answer

    async def _probe(self, url: str) -> bool:
        """Whether one token comes, under the mix whose turn it is: any other would wait for it."""
        sampling = Sampling(max_tokens=1)
        request = GenerateRequest((Message("user", "hi"),), self._turns.mix, sampling)
        body = self._body(request) | {"stream": False, "stream_options": None}
        try:
            async with asyncio.timeout(60):
                if not self.template.known:
                    self.template = await Template.read(self._client, url)
                response = await self._client.post(url + CHAT, json=body)
        except (httpx.TransportError, TimeoutError):
            return False
        return response.status_code == 200 and response.json()["usage"]["completion_tokens"] >= 1

    async def _alive(self, url: str) -> bool:
        """Whether the server's loop still takes tasks. It does so between two batches of a long
        prompt; in a grammar that never ends (a nested repetition in a schema) it doesn't."""
        with contextlib.suppress(httpx.TransportError):
            try:
                async with asyncio.timeout(HANGS_AFTER):
                    await self._client.get(url + "/lora-adapters", timeout=HANGS_AFTER)
            except (httpx.TimeoutException, TimeoutError):
                return False
        return True  # one that refuses the connection has ended, which its watcher sees

    def _unavailable(self) -> EngineUnavailableError:
        state = self.state
        return EngineUnavailableError(
            "The engine dropped the request." if state == "ready" else f"The engine is {state}.",
            retry_after=self.child.retry_after,
            fix="Try again shortly; it restarts by itself.",
        )


def _is_conversation(messages: Sequence[Message]) -> bool:
    """Whether to reuse a cached prefix.

    A reused prefix is computed in other batch shapes, which moves the last bits of the logits. A
    first turn is therefore always computed whole and repeats exactly; a later turn, whose prefix
    is long, takes the cache.
    """
    return any(message.role == "assistant" for message in messages)


def _piece(piece: str | list[int]) -> str:
    """A token's text; llama.cpp gives bytes for one that is no whole character."""
    return piece if isinstance(piece, str) else bytes(piece).decode(errors="replace")


def _engine_error(error: dict[str, Any], body: dict[str, Any]) -> EngineError | RequestError:
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return PromptTooLongError(
            f"The prompt has {error['n_prompt_tokens']} tokens; the context holds "
            f"{error['n_ctx']}.",
            param="messages",
            fix="Send fewer or shorter messages.",
        )
    if error.get("code") == 400:
        return RequestError(f"The engine refused the request: {message}", param=blamed(body))
    if error.get("code") == 503:
        return EngineUnavailableError(f"The engine is not ready: {message}")
    return EngineError(f"The engine failed: {message}")
