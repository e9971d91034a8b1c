"""vLLM: each mix becomes one adapter, loaded where it is needed, by one server or several."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

from adapters.adapter import Adapter, Refusal
from adapters.engines.base import Capabilities, Delta, EngineState, GenerateRequest, Token
from adapters.engines.breaker import CircuitState
from adapters.engines.child import Child
from adapters.engines.openai_wire import prompt_fields
from adapters.engines.rows import together
from adapters.engines.swaps import Swaps
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.capacity import Capacity, measure
from adapters.engines.vllm.config import VllmConfig
from adapters.engines.vllm.managed import program
from adapters.engines.vllm.refusals import AdapterGoneError, ServerLostError
from adapters.engines.vllm.replicas import Replicas
from adapters.engines.vllm.shelf import Shelf, fill
from adapters.engines.vllm.store import Entry, MixStore, Recipe
from adapters.engines.vllm.upstream import Upstream
from adapters.engines.vllm.wire import body_of, deltas_of
from adapters.engines.vllm.workdir import WorkDir
from adapters.mix import Mix
from kiki.errors import EngineError, EngineUnavailableError

log = logging.getLogger("kiki.adapters")

# The names that MixStore gives to composed mixes; the last part is the process's own folder.
_COMPOSED = re.compile(r".+@[0-9a-f]{12}-(run-[^./]+)\.\d+")


class VllmEngine:
    """One or several vLLM servers, or one that is run as a child process.

    ``converted`` is the folder for adapters that aren't in PEFT's form. ``trimmed`` counts the
    requests whose mix was too big (see ``fitting``).
    """

    def __init__(self, config: VllmConfig, converted: Path) -> None:
        self._config = config
        self._converted = converted
        self._base = BaseModel.read(config.model, config.dtype)
        self._work = WorkDir(config.work_dir)
        self._capacity = measure(config, self._base)
        self._shelf = Shelf()
        self._setting = asyncio.Lock()
        self.swaps = Swaps()
        api_key = config.api_key or (None if config.urls else secrets.token_urlsafe())
        servers = [
            Upstream(
                url.rstrip("/"),
                api_key=api_key,
                load_timeout=config.load_timeout,
                token_timeout=config.token_timeout,
                longest_delay=config.probe_interval,
                swaps=self.swaps,
            )
            for url in config.urls or ("managed",)
        ]
        self._replicas = Replicas(servers, config.slots, config.probe_interval)
        self._store = MixStore(
            self._work.path,
            self._capacity.store_bytes,
            config.store_mixes,
            self._replicas.unload,
            swaps=self.swaps,
        )
        self._child: Child | None = None
        if not config.urls:
            run = program(config, api_key or "", self._capacity.rank)
            self._child = Child(run, servers[0].connect, start_timeout=config.start_timeout)
        self._capabilities = Capabilities(
            name="vllm",
            model=Path(config.model).name,
            context_tokens=config.context_tokens,
            slots=config.slots * len(servers),
        )
        self._starting = False
        self.trimmed = 0

    @property
    def state(self) -> EngineState:
        if self._child and self._child.state != "ready":
            return self._child.state
        if self._starting:
            return "starting"
        if self._replicas.healthy:
            return "ready"
        return "down" if self._replicas.watching else "stopped"

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def capacity(self) -> Capacity:
        return self._capacity

    @property
    def slot_bytes(self) -> int | None:
        """What the adapter slots take on the device; None where the base's shapes are unknown."""
        return self._base.slot_bytes(self._config.max_loras, self._capacity.rank)

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._shelf.placed)

    @property
    def last_delta(self) -> float:
        return max(server.last_token for server in self._replicas.servers)

    @property
    def circuits(self) -> dict[str, CircuitState]:
        return {server.label: server.breaker.state for server in self._replicas.servers}

    @property
    def servers(self) -> tuple[Upstream, ...]:
        return self._replicas.servers

    @property
    def store(self) -> MixStore:
        return self._store

    @property
    def work_path(self) -> Path:
        """Where this engine's composed adapters lie."""
        return self._work.path

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def restarts(self) -> int:
        return self._child.restarts if self._child else 0

    async def start(self) -> None:
        self._starting = True
        try:
            if self._child:
                await self._child.start()
            else:
                await asyncio.gather(*(server.connect() for server in self._replicas.servers))
                if not self._replicas.healthy:
                    raise EngineUnavailableError(
                        f"No vLLM server generated a token: {', '.join(self._config.urls)}.",
                        fix="Check the addresses (vllm_urls) and the servers' logs.",
                    )
                await self._unload_leftovers()
            context = min(server.context_tokens for server in self._replicas.healthy)
            tools = all(server.tools for server in self._replicas.healthy)
            self._capabilities = replace(self._capabilities, context_tokens=context, tools=tools)
            self._replicas.watch()
        except BaseException:
            await self.stop()
            raise
        finally:
            self._starting = False

    async def stop(self) -> None:
        if self._child:
            await self._child.stop()
        await self._store.close()
        if not self._child:  # servers that go on must not keep names whose files go
            await asyncio.gather(*map(self._replicas.unload, self._store.composed_names))
        await self._replicas.close()
        await asyncio.to_thread(self._work.close)

    async def set_adapters(self, adapters: Sequence[Adapter]) -> tuple[Refusal, ...]:
        async with self._setting:
            self._shelf, refused = await asyncio.to_thread(
                fill, adapters, self._shelf, self._base, self._capacity, self._converted
            )
            self._store.retire(self._shelf.fingerprints)
            self._store.keep_spare(self._shelf.largest_mix(self._capacity))
        return refused

    def fitting(self, mix: Mix) -> Mix:
        return self._shelf.fitting(mix, self._capacity)

    async def ready(self) -> bool:
        return any([await server.probe() for server in self._replicas.healthy])

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        shelf = self._shelf
        for request in requests:
            shelf.check(request.mix)
        if self.state != "ready":
            raise self._unavailable()
        rows = [self._row(row, request, shelf) for row, request in enumerate(requests)]
        # vLLM waits for no reader: a row alone needs nobody to read ahead.
        batch = rows[0] if len(rows) == 1 else together(rows)
        async with contextlib.aclosing(batch) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, request: GenerateRequest, *, answer: bool = True) -> list[Token]:
        server = self._replicas.choose(None, set())
        if server is None:
            raise self._unavailable()
        fields = prompt_fields(request)
        if request.prompt is None:
            fields["add_generation_prompt"] = answer
        return await server.tokenize(fields)

    async def _row(
        self, row: int, request: GenerateRequest, shelf: Shelf
    ) -> AsyncGenerator[Delta, None]:
        mix = shelf.fitting(request.mix, self._capacity)
        if mix != request.mix:
            self.trimmed += 1
        async with contextlib.AsyncExitStack() as stack:
            entry = None
            recipe = shelf.recipe(mix) if mix else self._base_recipe(shelf)
            if recipe:
                entry = await stack.enter_async_context(self._store.hold(recipe))
            deltas = self._served(row, request, entry)
            async for delta in await stack.enter_async_context(contextlib.aclosing(deltas)):
                yield delta

    def _base_recipe(self, shelf: Shelf) -> Recipe | None:
        guard = self._config.on_cpu or any(s.mixes_base_rows for s in self._replicas.servers)
        return shelf.nothing() if guard else None

    async def _served(
        self, row: int, request: GenerateRequest, entry: Entry | None
    ) -> AsyncGenerator[Delta, None]:
        """The row from a server that has, or gets, its adapter.

        Until the first token, a server that is lost is replaced by another one, and an adapter
        that a restarted server no longer has is loaded again, once.
        """
        tried: set[Upstream] = set()
        reloaded = False
        while True:
            server = self._replicas.choose(entry.recipe.key if entry else None, tried)
            if server is None:
                raise self._unavailable()
            started = False
            load: asyncio.Task[None] | None = None
            try:
                with server.busy():
                    if entry:
                        if entry.recipe.check:
                            entry.recipe.check()  # vLLM may read the files again at any time
                        load = await server.ensure(entry.name, entry.path, entry.recipe.check)
                    answer = self._answer(row, request, server, entry)
                    async with contextlib.aclosing(answer) as deltas:
                        async for delta in deltas:
                            started = True
                            yield delta
                return
            except AdapterGoneError:
                if started or reloaded or entry is None or load is None:
                    raise
                server.forget(entry.name, load)
                reloaded = True
            except ServerLostError:
                if started:
                    raise
                tried.add(server)

    async def _answer(
        self, row: int, request: GenerateRequest, server: Upstream, entry: Entry | None
    ) -> AsyncGenerator[Delta, None]:
        body = body_of(request, server.context_tokens)
        body["model"] = entry.name if entry else server.base
        async with (
            server.chat(body) as chunks,
            contextlib.aclosing(deltas_of(row, chunks)) as deltas,
        ):
            async for delta in deltas:
                yield delta

    async def _unload_leftovers(self) -> None:
        """Take composed mixes of dead gateways from the servers: their files are gone."""
        for server in self._replicas.healthy:
            try:
                for name, path in await server.loaded_names():
                    owner = _COMPOSED.fullmatch(name)
                    ours = Path(path).is_relative_to(self._work.parent)
                    if owner and ours and not (self._work.parent / owner[1]).is_dir():
                        await server.unload_stranger(name)
                        log.info("unloaded %s, left by a gateway that is gone", name)
            except EngineError as error:
                log.warning("vLLM at %s kept what was left there: %s", server.url, error)

    def _unavailable(self) -> EngineUnavailableError:
        state = self.state
        waits = [server.breaker.wait for server in self._replicas.servers]
        return EngineUnavailableError(
            "No vLLM server took the request." if state == "ready" else f"The engine is {state}.",
            retry_after=self._child.retry_after if self._child else max(1.0, min(waits)),
            fix="Try again shortly; servers that answer again are used again.",
        )
