"""Models that decide beside the one that answers: the engine itself, a GGUF of its own, a URL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urldefrag

from adapters.engines.base import Engine, GenerateRequest, Message, Sampling, complete
from gateway.generate import role
from gateway.named_model import is_url
from gateway.settings import Settings
from gateway.thinking import strip_thinking
from kiki.errors import EngineError, EngineUnavailableError, KikiError
from memory.cerebellum import Ask

log = logging.getLogger("kiki.gateway")

CONTEXT_TOKENS = 4096
START_S = 300.0
"""Nobody waits for it: who asks meanwhile does without."""


@dataclass(frozen=True, slots=True)
class Said:
    """A model's answer without its thinking, and the tokens of prompt and answer."""

    text: str
    tokens: int


class AskedModel(Protocol):
    """Answers chat messages, held to a JSON schema where there is one."""

    async def ask(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object] | None,
        max_tokens: int,
        temperature: float = 0.0,
    ) -> Said:
        """Raises EngineError, and EngineUnavailableError where nobody answers."""


class EngineModel:
    """The base model of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ask(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object] | None,
        max_tokens: int,
        temperature: float = 0.0,
    ) -> Said:
        sampling = Sampling(
            max_tokens=max_tokens, temperature=temperature, seed=0, json_schema=json_schema
        )
        told = tuple(Message(role(name), content) for name, content in messages)
        (done,) = await complete(self._engine, [GenerateRequest(told, sampling=sampling)])
        tokens = done.usage.prompt_tokens + done.usage.completion_tokens
        return Said(strip_thinking(done.text), tokens)


class UrlModel:
    """An OpenAI-compatible server at ``url`` (with its ``/v1``).

    ``#name`` at the end of it names the model; without it the server's first one is asked.
    ``setting`` is what named it, for messages: the URL itself is nobody else's business.
    """

    def __init__(self, url: str, api_key: str | None = None, *, setting: str) -> None:
        import httpx

        base, self._model = urldefrag(url)
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(
            base_url=base.rstrip("/"), headers=headers, timeout=httpx.Timeout(None)
        )
        self._setting = setting

    async def ask(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object] | None,
        max_tokens: int,
        temperature: float = 0.0,
    ) -> Said:
        body: dict[str, Any] = {
            "model": await self._named(),
            "messages": [{"role": name, "content": content} for name, content in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if json_schema is not None:
            schema = {"name": "decision", "schema": dict(json_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        answer = await self._send("POST", "/chat/completions", body)
        try:
            text = answer["choices"][0]["message"]["content"] or ""
            tokens = int((answer.get("usage") or {}).get("total_tokens") or 0)
            return Said(strip_thinking(text), tokens)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._failed("gave no chat completion") from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _named(self) -> str:
        if not self._model:
            answer = await self._send("GET", "/models")
            try:
                self._model = str(answer["data"][0]["id"])
            except (KeyError, IndexError, TypeError) as error:
                raise self._failed("named no model") from error
        return self._model

    async def _send(self, method: str, path: str, body: object = None) -> Any:
        import httpx

        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            log.warning("%s: %s: %s", self._setting, type(error).__name__, error)
            raise EngineUnavailableError(
                f"The server that {self._setting} names can't be reached.",
                fix=f"Start it, or correct {self._setting}.",
            ) from error
        if answer.status_code != 200:
            raise self._failed(f"answered {answer.status_code}")
        try:
            return answer.json()
        except ValueError as error:
            raise self._failed("answered no JSON") from error

    def _failed(self, what: str) -> EngineError:
        return EngineError(f"The server that {self._setting} names {what}.")


class Waiting:
    """A model that is asked in the event loop ``loop``, for callers in other threads."""

    def __init__(self, model: AskedModel, loop: asyncio.AbstractEventLoop) -> None:
        self.model = model
        self._loop = loop

    def __call__(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object],
        max_tokens: int,
        timeout_s: float,
    ) -> str:
        asked = asyncio.run_coroutine_threadsafe(
            _ask(self.model, messages, json_schema, max_tokens), self._loop
        )
        try:
            return asked.result(timeout_s).text
        except TimeoutError:
            asked.cancel()
            raise


async def _ask(
    model: AskedModel,
    messages: Sequence[tuple[str, str]],
    json_schema: Mapping[str, object],
    max_tokens: int,
) -> Said:
    return await model.ask(messages, json_schema=json_schema, max_tokens=max_tokens)


@asynccontextmanager
async def asking(settings: Settings, engine: Engine | None) -> AsyncIterator[Ask | None]:
    """What ``cerebellum`` names, ready to be asked from other threads; None for rules."""
    if settings.cerebellum == "rules":
        yield None
        return
    async with opened(settings, "cerebellum", engine) as model:
        yield Waiting(model, asyncio.get_running_loop())


@asynccontextmanager
async def opened(
    settings: Settings, setting: str, engine: Engine | None
) -> AsyncIterator[AskedModel]:
    """The model that a setting names; ``engine`` is the one that serves.

    A GGUF of its own starts in the background: until it is there, and if it can't, asking it
    raises EngineUnavailableError.
    """
    named = str(getattr(settings, setting))
    if named == "engine":
        assert engine is not None
        yield EngineModel(engine)
    elif is_url(named):
        key = getattr(settings, f"{setting}_api_key")
        model = UrlModel(named, key.get_secret_value() if key else None, setting=setting)
        try:
            yield model
        finally:
            await model.close()
    else:
        async with _own(settings, Path(named), setting) as own:
            yield EngineModel(own)


@asynccontextmanager
async def _own(settings: Settings, model: Path, setting: str) -> AsyncIterator[Engine]:
    from adapters.engines.llamacpp import LlamaCppEngine

    engine = LlamaCppEngine(
        model,
        cache_dir=settings.models_dir / "adapters",
        slots=1,
        context_tokens=CONTEXT_TOKENS,
        threads=settings.router_threads,
        start_timeout=START_S,
    )
    starting = asyncio.create_task(_start(engine, setting))
    try:
        yield engine
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await engine.stop()


async def _start(engine: Engine, setting: str) -> None:
    try:
        await engine.start()
    except KikiError as error:
        log.warning("the model that %s names can't start: %s", setting, error)
