"""One vLLM server: its adapters, its requests, and whether it really answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from adapters.engines.base import Token, Tool, Tools
from adapters.engines.breaker import Breaker
from adapters.engines.openai_wire import CHAT, COMPLETIONS, batches, error_of, tool_fields
from adapters.engines.swaps import Swaps
from adapters.engines.tasks import end_tasks
from adapters.engines.vllm.connection import TRANSPORT_ERRORS, Answer, Connection
from adapters.engines.vllm.refusals import (
    AdapterGoneError,
    ServerLostError,
    is_duplicate,
    load_error,
    refusal,
)
from kiki.errors import AdapterError, EngineError, EngineUnavailableError, PromptTooLongError

log = logging.getLogger("kiki.adapters")

PROBE_TIMEOUT = 60.0
LONGEST_DELAY = 10.0


class Upstream:
    """A server at ``url``. ``label`` stays the same when a restart gives it another address.

    ``mixes_base_rows`` says that it calls itself a CPU build (see ``VllmConfig.on_cpu``), ``tools``
    that the template shows tools and their calls are read.
    ``breaker`` is what probes and requests showed. ``in_flight`` counts requests, ``loads`` and
    ``load_seconds`` the adapters that were loaded here.
    """

    def __init__(
        self,
        label: str,
        *,
        api_key: str | None = None,
        load_timeout: float = 120.0,
        token_timeout: float = 300.0,
        longest_delay: float = LONGEST_DELAY,
        swaps: Swaps | None = None,
    ) -> None:
        self.label = label
        self.url = label
        self.base = ""
        self.context_tokens = 0
        self.mixes_base_rows = False
        self.tools = False
        self.breaker = Breaker(longest_delay)
        self.in_flight = 0
        self.last_token = float("-inf")
        self.suspect = asyncio.Event()
        self.loads = 0
        self.load_seconds = 0.0
        self._load_timeout = load_timeout
        self._swaps = swaps or Swaps()
        self._loaded: dict[str, asyncio.Task[None]] = {}
        self._probe_timeout = min(PROBE_TIMEOUT, token_timeout)
        self._connection = Connection(api_key, token_timeout)

    @property
    def healthy(self) -> bool:
        """Whether requests may be sent to it."""
        return self.breaker.closed

    async def close(self) -> None:
        if loads := [load for load in self._loaded.values() if not load.done()]:
            await end_tasks(loads)
        await self._connection.close()

    async def connect(self, url: str | None = None) -> bool:
        """Learn what the server serves and generate a token; False if that fails.

        What was loaded before is forgotten: a server that went away came back empty.
        """
        self.url = url or self.url
        self.breaker.try_again()
        self._loaded.clear()
        try:
            models = (await self._request("GET", "/v1/models")).json()["data"]
            card = next(card for card in models if not card.get("parent"))
            self.base, self.context_tokens = str(card["id"]), int(card["max_model_len"])
            version = (await self._request("GET", "/version")).json()["version"]
            self.mixes_base_rows = "cpu" in str(version)
            self.tools = await self._takes_tools()
        except (EngineError, StopIteration, LookupError, TypeError, ValueError) as error:
            log.warning("vLLM at %s doesn't say what it serves: %s", self.url, error)
            self.breaker.trip()
            return False
        return await self.probe()

    async def probe(self) -> bool:
        """Generate one token; ``/health`` was seen to answer 200 after the engine had died.

        Where none comes in time, and no other request gets one either, the server hangs: all that
        wait for it fail.
        """
        body = {
            "model": self.base,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 1,
        }
        began = time.monotonic()
        try:
            answer = await self._connection.ask(
                "POST", self.url + "/v1/chat/completions", body, self._probe_timeout
            )
            if int(answer.json()["usage"]["completion_tokens"]) < 1:
                raise ValueError("it counted none")
        except TimeoutError:
            if self.last_token < began:
                log.warning("vLLM at %s hangs: no token in %.0f s", self.url, self._probe_timeout)
                self.breaker.trip()
                self._connection.abandon()
                return False
        except (*TRANSPORT_ERRORS, LookupError, TypeError, ValueError) as error:
            log.warning("vLLM at %s generated no token: %r", self.url, error)
            self.breaker.trip()
            return False
        if not self.healthy:
            self.breaker.reset()
        return True

    async def tokenize(self, fields: dict[str, Any]) -> list[Token]:
        """The tokens of a prompt or of messages. Raises EngineError."""
        body = {"model": self.base, "return_token_strs": True, **fields}
        told = (await self._request("POST", "/tokenize", body, 30.0)).json()
        texts = told.get("token_strs") or [""] * len(told["tokens"])
        return [Token(id_, text) for id_, text in zip(told["tokens"], texts, strict=True)]

    async def _takes_tools(self) -> bool:
        """Whether a tool makes the prompt longer, and may be left to the model to call."""
        tools = tool_fields(Tools((Tool("tool", "A tool.", {"type": "object"}),)))
        hello = [{"role": "user", "content": "hi"}]
        body: dict[str, Any] = {"model": self.base, "messages": hello}
        try:
            without = len(await self.tokenize(body))
            if len(await self.tokenize(body | {"tools": tools["tools"]})) == without:
                return False
            await self._request("POST", CHAT, body | tools | {"max_tokens": 1}, PROBE_TIMEOUT)
        except (EngineError, LookupError, TypeError, ValueError) as error:
            log.info("vLLM at %s takes no tools: %s", self.url, error)
            return False
        return True

    async def ensure(
        self, name: str, path: Path, check: Callable[[], None] | None = None
    ) -> asyncio.Task[None]:
        """Load the adapter unless it is loaded; the same load for all who ask at once.

        ``check`` raises AdapterError where the files changed while vLLM read them.

        Returns what ``forget`` takes. Raises EngineError where the server refuses the adapter,
        ServerLostError where it doesn't answer.
        """
        load = self._loaded.get(name)
        if load is None:
            load = asyncio.create_task(self._load(name, path, check), name=f"load {name}")
            load.add_done_callback(lambda done: self._drop_failed(name, done))
            self._loaded[name] = load
        await asyncio.shield(load)
        return load

    def forget(self, name: str, load: asyncio.Task[None]) -> None:
        """The server no longer has what ``load`` loaded; a later load of that name stays."""
        if self._loaded.get(name) is load:
            del self._loaded[name]

    async def unload(self, name: str) -> None:
        """Take the adapter from the server, where it was loaded; a dead server has lost it."""
        load = self._loaded.pop(name, None)
        if load is None:
            return
        await asyncio.wait([load])
        try:
            await self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name}, 30.0)
        except EngineError as error:
            log.info("vLLM at %s didn't unload %s: %s", self.url, name, error)

    async def loaded_names(self) -> list[tuple[str, str]]:
        """Names and paths of all adapters that the server has, ours or not."""
        models = (await self._request("GET", "/v1/models")).json()["data"]
        return [(card["id"], str(card.get("root"))) for card in models if card.get("parent")]

    async def unload_stranger(self, name: str) -> None:
        """Take away an adapter that this process didn't load. Raises EngineError."""
        await self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name}, 30.0)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextlib.asynccontextmanager
    async def chat(
        self, body: dict[str, Any]
    ) -> AsyncIterator[AsyncIterator[list[dict[str, Any]]]]:
        """The chunks of a streamed completion, those in a list that came together.

        Closing it closes the connection. Raises what ``refusals`` makes of an error,
        ServerLostError where the connection breaks.
        """
        path = COMPLETIONS if "prompt" in body else CHAT
        try:
            async with self._connection.stream(self.url + path, body) as response:
                if response.status != 200:
                    error = error_of(await response.read())
                    raise await self._judge(response.status, error, body)
                if response.content_type != "text/event-stream":
                    raise EngineError(
                        f"vLLM at {self.url} answered with {response.content_type}, not a stream.",
                        fix="Check that vllm_urls names vLLM servers, and nothing in between.",
                    )
                yield self._watched(batches(response.content.iter_any()))
            self.breaker.succeed()
        except TimeoutError as error:
            if not self.healthy:  # a probe has found that it hangs
                raise self._lost(error) from error
            self._failed()
            raise EngineError(f"vLLM at {self.url} gave no token in time.") from error
        except TRANSPORT_ERRORS as error:
            raise self._lost(error) from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            self._failed()
            raise EngineError(
                f"vLLM at {self.url} sent something that is no piece of an answer: {error!r}."
            ) from error
        except AdapterGoneError:
            raise
        except EngineError:
            self._failed()
            raise

    def _failed(self) -> None:
        self.breaker.fail()
        self.suspect.set()

    async def _watched(
        self, batches: AsyncIterator[list[dict[str, Any]]]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        async for chunks in batches:
            for chunk in chunks:
                if "error" in chunk:
                    raise EngineUnavailableError(
                        f"vLLM failed in the middle of the answer: {chunk['error'].get('message')}"
                    )
            self.last_token = time.monotonic()
            yield chunks

    async def _judge(self, status: int, error: dict[str, Any], body: dict[str, Any]) -> Exception:
        found = refusal(status, error, body)
        if isinstance(found, PromptTooLongError):
            tokens = await self._count_tokens(body)
            return _too_long(tokens, self.context_tokens) if tokens else found
        if status >= 500 and not await self.probe():
            return self._lost(found)
        return found

    async def _count_tokens(self, body: dict[str, Any]) -> int | None:
        """vLLM stops counting a prompt that is too long one token past its context."""
        shown: dict[str, Any] = {"model": self.base}
        shown |= {name: body[name] for name in ("messages", "prompt", "tools") if name in body}
        try:
            answer = await self._request("POST", "/tokenize", shown, 30.0)
            return int(answer.json()["count"])
        except (EngineError, LookupError, TypeError, ValueError):
            return None

    async def _load(self, name: str, path: Path, check: Callable[[], None] | None) -> None:
        started = time.monotonic()
        body = {"lora_name": name, "lora_path": str(path)}
        try:
            response = await self._connection.ask(
                "POST", self.url + "/v1/load_lora_adapter", body, self._load_timeout
            )
        except TimeoutError as error:
            self.suspect.set()
            raise EngineError(f"vLLM at {self.url} didn't load {name} in time.") from error
        except TRANSPORT_ERRORS as error:
            raise self._lost(error) from error
        answer = error_of(response.body)
        # A load whose answer was lost, or another gateway's of the same name: names are versions.
        if response.status != 200 and not is_duplicate(response.status, answer):
            failure = load_error(response.status, answer, name, path)
            if response.status >= 500 and not await self.probe():
                raise self._lost(failure)
            raise failure
        try:
            if check:
                check()
        except AdapterError:
            await self.unload_stranger(name)  # what it read is anything
            raise
        self.loads += 1
        seconds = time.monotonic() - started
        self.load_seconds += seconds
        self._swaps.count("load", seconds)

    def _drop_failed(self, name: str, load: asyncio.Task[None]) -> None:
        if load.cancelled() or load.exception():
            self.forget(name, load)

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None, seconds: float = 10.0
    ) -> Answer:
        try:
            answer = await self._connection.ask(method, self.url + path, body, seconds)
        except (*TRANSPORT_ERRORS, TimeoutError) as error:
            raise self._lost(error) from error
        if answer.status != 200:
            message = error_of(answer.body).get("message")
            raise EngineError(f"{path} answered {answer.status}: {message}")
        return answer

    def _lost(self, error: Exception) -> ServerLostError:
        self.breaker.trip()
        self.suspect.set()
        detail = str(error) or type(error).__name__
        return ServerLostError(
            f"vLLM at {self.url} dropped the request: {detail}",
            fix="Try again shortly; it is asked for a token until it answers.",
        )


def _too_long(tokens: int, context: int) -> PromptTooLongError:
    return PromptTooLongError(
        f"The prompt has {tokens} tokens; the context holds {context}.",
        param="messages",
        fix="Send fewer or shorter messages.",
    )
