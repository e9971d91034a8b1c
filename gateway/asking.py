"""The models that the cerebellum may ask: the gateway's engine, a GGUF of its own, or a URL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.engines.base import Engine, GenerateRequest, Message, Sampling, complete
from gateway.generate import role
from gateway.settings import Settings
from gateway.thinking import strip_thinking
from kiki.errors import EngineError, KikiError
from memory.cerebellum import Ask

log = logging.getLogger("kiki.gateway")

CONTEXT_TOKENS = 2048
START_S = 300.0
"""Nobody waits for it: the rules decide meanwhile."""


class EngineAsk:
    """An engine that runs in the event loop ``loop``, for callers in other threads."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop

    def __call__(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object],
        max_tokens: int,
        timeout_s: float,
    ) -> str:
        sampling = Sampling(max_tokens=max_tokens, temperature=0.0, seed=0, json_schema=json_schema)
        told = tuple(Message(role(name), content) for name, content in messages)
        asked = asyncio.run_coroutine_threadsafe(
            complete(self._engine, [GenerateRequest(told, sampling=sampling)]), self._loop
        )
        try:
            (completion,) = asked.result(timeout_s)
        except TimeoutError:
            asked.cancel()
            raise
        return strip_thinking(completion.text)


class UrlAsk:
    """An OpenAI-compatible server at ``url`` (with its ``/v1``); its first model is asked."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        import httpx

        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=url.rstrip("/"), headers=headers)
        self._model: str | None = None

    def __call__(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object],
        max_tokens: int,
        timeout_s: float,
    ) -> str:
        import httpx

        schema = {"name": "decision", "schema": dict(json_schema), "strict": True}
        try:
            body = {
                "model": self._named(timeout_s),
                "messages": [{"role": name, "content": content} for name, content in messages],
                "max_tokens": max_tokens,
                "temperature": 0,
                "response_format": {"type": "json_schema", "json_schema": schema},
            }
            answer = self._client.post("/chat/completions", json=body, timeout=timeout_s)
        except httpx.TimeoutException as error:
            raise TimeoutError(str(error)) from error
        if answer.status_code != 200:
            raise EngineError(f"{self._client.base_url} answered {answer.status_code}.")
        return strip_thinking(str(answer.json()["choices"][0]["message"]["content"]))

    def _named(self, timeout_s: float) -> str:
        if self._model is None:
            answer = self._client.get("/models", timeout=timeout_s).raise_for_status()
            self._model = str(answer.json()["data"][0]["id"])
        return self._model

    def close(self) -> None:
        self._client.close()


@asynccontextmanager
async def asking(settings: Settings, engine: Engine | None) -> AsyncIterator[Ask | None]:
    """What ``cerebellum`` names, ready to be asked from other threads; None for rules.

    ``engine`` is the one that serves. A GGUF of its own starts in the background: until it is
    there, and if it can't, the rules decide.
    """
    named = settings.cerebellum
    if named == "rules":
        yield None
    elif named == "engine":
        assert engine is not None
        yield EngineAsk(engine, asyncio.get_running_loop())
    elif named.startswith(("http://", "https://")):
        key = settings.cerebellum_api_key
        ask = UrlAsk(named, key.get_secret_value() if key else None)
        try:
            yield ask
        finally:
            ask.close()
    else:
        async with _own(settings, Path(named)) as own:
            yield EngineAsk(own, asyncio.get_running_loop())


@asynccontextmanager
async def _own(settings: Settings, model: Path) -> AsyncIterator[Engine]:
    from adapters.engines.llamacpp import LlamaCppEngine

    engine = LlamaCppEngine(
        model,
        cache_dir=settings.models_dir / "adapters",
        slots=1,
        context_tokens=CONTEXT_TOKENS,
        threads=settings.router_threads,
        start_timeout=START_S,
    )
    starting = asyncio.create_task(_start(engine))
    try:
        yield engine
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await engine.stop()


async def _start(engine: Engine) -> None:
    try:
        await engine.start()
    except KikiError as error:
        log.warning("the cerebellum's model can't start, so rules decide: %s", error)
