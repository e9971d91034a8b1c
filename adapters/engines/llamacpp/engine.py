"""llama.cpp: any GGUF model, LoRA adapters mixed by each request's explicit list of scales."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from adapters.engines.base import (
    Capabilities,
    Delta,
    EngineState,
    GenerateRequest,
    Message,
    Sampling,
    TokenLogprob,
    Usage,
)
from adapters.engines.child import Child
from adapters.engines.llamacpp.server import ServerSpec
from adapters.engines.tasks import end_tasks
from adapters.mix import Mix
from kiki.errors import (
    EngineError,
    EngineUnavailableError,
    PromptTooLongError,
    RequestError,
    UnknownAdapterError,
)


class LlamaCppEngine:
    """A managed llama.cpp server.

    ``adapters`` maps names to GGUF LoRA files; ids are places in that order. Every request names
    every adapter with its scale: llama.cpp takes a list that is left out for "as the last request
    had it" and would hand over that request's cache (ggml-org/llama.cpp#26207).
    """

    def __init__(
        self,
        model: Path,
        adapters: Mapping[str, Path],
        *,
        slots: int = 4,
        context_tokens: int = 4096,
        threads: int = 2,
        start_timeout: float = 120.0,
    ) -> None:
        self._ids = {name: number for number, name in enumerate(adapters)}
        self._capabilities = Capabilities(
            name="llamacpp",
            model=model.stem,
            context_tokens=context_tokens,
            slots=slots,
        )
        paths = tuple(str(path) for path in adapters.values())
        spec = ServerSpec(str(model), paths, slots, context_tokens, threads)
        self._child = Child(spec.program(), self._probe, start_timeout=start_timeout)
        self._client: httpx.AsyncClient | None = None
        self.last_delta = float("-inf")

    @property
    def state(self) -> EngineState:
        return self._child.state

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._ids)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def url(self) -> str:
        """Address of the llama.cpp server, another one after each restart."""
        return self._child.url

    @property
    def restarts(self) -> int:
        return self._child.restarts

    async def start(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(300.0, connect=2.0),
            # A kept connection may be dropped by the server just when it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )
        try:
            await self._child.start()
        except EngineUnavailableError:
            await self._client.aclose()
            raise

    async def stop(self) -> None:
        await self._child.stop()
        if self._client:
            await self._client.aclose()

    def fitting(self, mix: Mix) -> Mix:
        return mix

    async def ready(self) -> bool:
        return self._child.state == "ready" and await self._probe(self._child.url)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        bodies = [self._body(request) for request in requests]
        if self._child.state != "ready":
            raise self._unavailable()
        if len(bodies) == 1:
            async with contextlib.aclosing(self._row(0, bodies[0])) as row:
                async for delta in row:
                    yield delta
            return
        queue: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        tasks = {
            asyncio.create_task(self._pump(row, body, queue)) for row, body in enumerate(bodies)
        }
        try:
            unfinished = len(bodies)
            while unfinished:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                unfinished -= item.finish_reason is not None
        finally:
            await end_tasks(tasks)

    async def _pump(
        self, row: int, body: dict[str, Any], queue: asyncio.Queue[Delta | Exception]
    ) -> None:
        try:
            async with contextlib.aclosing(self._row(row, body)) as deltas:
                async for delta in deltas:
                    queue.put_nowait(delta)
        except Exception as error:  # whatever it is, it is raised where the batch is read
            queue.put_nowait(error)

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "lora": self._scales(request.mix),
            "cache_prompt": _is_conversation(request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "reasoning_format": "none",
            **_sampling_fields(sampling),
        }
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

    async def _row(self, row: int, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        finish: str | None = None
        usage = Usage()
        async with self._stream(body) as lines:
            async for line in lines:
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise _engine_error(chunk["error"])
                if chunk.get("usage"):
                    usage = _usage(chunk["usage"])
                for choice in chunk["choices"]:
                    finish = choice["finish_reason"] or finish
                    text = choice["delta"].get("content") or ""
                    logprobs = _logprobs(choice.get("logprobs"))
                    self.last_delta = time.monotonic()
                    if text or logprobs:
                        yield Delta(row, text, logprobs)
        if finish is None:
            raise EngineUnavailableError("The engine ended in the middle of the answer.")
        yield Delta(row, finish_reason="length" if finish == "length" else "stop", usage=usage)

    @contextlib.asynccontextmanager
    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        assert self._client
        url = self._child.url + "/v1/chat/completions"
        try:
            async with self._client.stream("POST", url, json=body) as response:
                if response.status_code != 200:
                    raise _engine_error(_error_of(await response.aread()))
                yield response.aiter_lines()
        except httpx.ReadTimeout as error:
            raise EngineError("The engine gave no token for 300 s.") from error
        except httpx.TransportError as error:
            raise self._unavailable() from error

    async def _post(self, url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._client
        try:
            response = await self._client.post(url + path, json=body)
        except httpx.TransportError as error:
            raise self._unavailable() from error
        if response.status_code != 200:
            raise _engine_error(_error_of(response.content))
        answer: dict[str, Any] = response.json()
        return answer

    async def _probe(self, url: str) -> bool:
        request = GenerateRequest((Message("user", "hi"),), sampling=Sampling(max_tokens=1))
        body = self._body(request) | {"stream": False, "stream_options": None}
        try:
            async with asyncio.timeout(60):
                answer = await self._post(url, "/v1/chat/completions", body)
        except (EngineError, TimeoutError):
            return False
        return int(answer["usage"]["completion_tokens"]) >= 1

    def _unavailable(self) -> EngineUnavailableError:
        state = self._child.state
        return EngineUnavailableError(
            "The engine dropped the request." if state == "ready" else f"The engine is {state}.",
            retry_after=self._child.retry_after,
            fix="Try again shortly; it restarts by itself.",
        )


def _is_conversation(messages: Sequence[Message]) -> bool:
    """Whether to reuse a cached prefix.

    A reused prefix is computed in other batch shapes, which moves the last bits of the logits. A
    first turn is therefore always computed whole and repeats exactly; a later turn, whose prefix
    is long, takes the cache.
    """
    return any(message.role == "assistant" for message in messages)


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # llama.cpp's own defaults cut the distribution; OpenAI's parameters alone must decide.
        "top_k": 0,
        "min_p": 0.0,
    }
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": dict(sampling.json_schema)}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if sampling.top_logprobs:
        fields |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return fields


def _usage(usage: dict[str, Any]) -> Usage:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)


def _logprobs(logprobs: dict[str, Any] | None) -> tuple[TokenLogprob, ...]:
    if not logprobs:
        return ()
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple((top["token"], top["logprob"]) for top in entry.get("top_logprobs", ())),
        )
        for entry in logprobs["content"]
    )


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": body[:200].decode(errors="replace")}
    return error if isinstance(error, dict) else {"message": str(error)}


def _engine_error(error: dict[str, Any]) -> EngineError | RequestError:
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        return PromptTooLongError(
            f"The prompt has {error['n_prompt_tokens']} tokens; the context holds "
            f"{error['n_ctx']}.",
            param="messages",
            fix="Send fewer or shorter messages.",
        )
    if error.get("code") == 400:
        return RequestError(f"The engine refused the request: {message}")
    if error.get("code") == 503:
        return EngineUnavailableError(f"The engine is not ready: {message}")
    return EngineError(f"The engine failed: {message}")
