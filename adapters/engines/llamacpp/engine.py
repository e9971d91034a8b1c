"""llama.cpp: any GGUF model, LoRA adapters mixed by each request's explicit list of scales."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from adapters.adapter import Adapter, Refusal
from adapters.engines.base import Capabilities, Delta, EngineState, GenerateRequest, Token
from adapters.engines.breaker import CircuitState
from adapters.engines.llamacpp.files import AdapterFiles, AdapterSet
from adapters.engines.llamacpp.precision import DEFAULT, Precision
from adapters.engines.llamacpp.replica import Replica
from adapters.engines.llamacpp.server import ServerSpec
from adapters.engines.swaps import Swaps
from adapters.engines.tasks import end_tasks
from adapters.mix import Mix
from kiki.errors import EngineUnavailableError

log = logging.getLogger("kiki.adapters")


class LlamaCppEngine:
    """A managed llama.cpp server, and for a moment two: its adapters are fixed when it starts.

    A new set of adapters starts a second server. When that has generated a token, new rows go to
    it; the first one finishes its rows and ends. On a CPU both map the same model file, so the
    second costs a KV cache and its adapters; on a GPU it costs a second copy of the weights too.
    Where that doesn't fit, the second fails to start and the first goes on with the old set.

    ``cache_dir`` keeps the adapters as GGUF; other gateways may use the same.
    """

    def __init__(
        self,
        model: Path,
        *,
        cache_dir: Path,
        slots: int = 4,
        context_tokens: int = 4096,
        threads: int = 2,
        start_timeout: float = 120.0,
        precision: Precision = DEFAULT,
    ) -> None:
        self._model = model
        self._threads = threads
        self._precision = precision
        self._start_timeout = start_timeout
        self._capabilities = Capabilities("llamacpp", model.stem, context_tokens, slots)
        self._files = AdapterFiles(model, cache_dir, f32=precision.f32_adapters)
        self._adapters = AdapterSet({}, {})
        self._replica: Replica | None = None
        self._incoming: Replica | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._retired_restarts = 0
        self._changing = asyncio.Lock()  # held by who changes the adapters
        self._launching = asyncio.Lock()  # held while a server starts
        self._stopped = False
        self.swaps = Swaps()

    @property
    def state(self) -> EngineState:
        return self._replica.state if self._replica else "stopped"

    @property
    def capabilities(self) -> Capabilities:
        if self._replica is None:
            return self._capabilities
        template = self._replica.template
        return replace(
            self._capabilities,
            tools=template.tools,
            variables=template.variables,
            vocabulary=template.vocabulary,
        )

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters.files)

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        return {}

    @property
    def last_delta(self) -> float:
        return self._replica.last_delta if self._replica else float("-inf")

    @property
    def pid(self) -> int | None:
        """The process that new rows go to."""
        return self._replica.child.pid if self._replica else None

    @property
    def url(self) -> str:
        """Its address, another one after each restart and each change of adapters."""
        return self._replica.child.url if self._replica else ""

    @property
    def restarts(self) -> int:
        """How often a server that had died was started again; a change of adapters isn't one."""
        return self._retired_restarts + (self._replica.child.restarts if self._replica else 0)

    def fitting(self, mix: Mix) -> Mix:
        return mix

    async def start(self) -> None:
        async with self._launching:
            self._stopped = False
            self._replica = self._make_replica(self._adapters)
            await self._replica.start()

    async def stop(self) -> None:
        """End every server, one that is only starting too. The adapters are forgotten."""
        self._stopped = True
        for replica in (self._incoming, self._replica):
            if replica:
                await replica.stop()
        async with self._launching:  # who was starting a server has seen it end
            if self._retiring:
                await end_tasks(self._retiring)
            self._adapters.release()
            self._replica, self._adapters = None, AdapterSet({}, {})

    async def set_adapters(self, adapters: Sequence[Adapter]) -> tuple[Refusal, ...]:
        """See ``Engine``. Raises EngineUnavailableError when no server starts with the new set;
        the old one is then served on. It does so, too, for an engine that was stopped.
        """
        async with self._changing:
            self._check_running()
            wanted, refused = await self._prepare(adapters)
            try:
                await self._serve(wanted)
            except BaseException:
                wanted.release()
                raise
            return refused

    async def ready(self) -> bool:
        return self._replica is not None and await self._replica.ready()

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        if self._replica is None:
            raise EngineUnavailableError("The engine is stopped.")
        async with aclosing(self._replica.generate(requests)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, request: GenerateRequest, *, answer: bool = True) -> list[Token]:
        if self._replica is None:
            raise EngineUnavailableError("The engine is stopped.")
        return await self._replica.tokenize(request, answer=answer)

    def _check_running(self) -> None:
        if self._stopped:
            raise EngineUnavailableError("The engine was stopped.")

    async def _prepare(self, adapters: Sequence[Adapter]) -> tuple[AdapterSet, tuple[Refusal, ...]]:
        """The adapters as files; a caller who is cancelled leaves none of them locked."""
        work = asyncio.create_task(asyncio.to_thread(self._files.prepare, adapters))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_release)
            raise

    async def _serve(self, wanted: AdapterSet) -> None:
        async with self._launching:
            self._check_running()
            if wanted == self._adapters:
                wanted.release()
            elif self._replica is None:
                self._adapters.release()
                self._adapters = wanted
            else:
                await self._change(self._replica, wanted)

    async def _change(self, old: Replica, wanted: AdapterSet) -> None:
        self._incoming = new = self._make_replica(wanted)
        try:
            with self.swaps.timed("restart"):
                await new.start()
        except EngineUnavailableError as error:
            raise EngineUnavailableError(
                f"The engine goes on with the adapters it had; with the new ones: {error.message}",
                fix=error.fix,
            ) from error
        finally:
            self._incoming = None
        self._replica, self._adapters = new, wanted
        log.info("llama.cpp serves %s now", ", ".join(wanted.files) or "the base alone")
        task = asyncio.create_task(self._retire(old), name="engine-retiring")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, replica: Replica) -> None:
        self._retired_restarts += replica.child.restarts
        try:
            await replica.drained()
        finally:
            await replica.stop()

    def _make_replica(self, adapters: AdapterSet) -> Replica:
        spec = ServerSpec(
            model=str(self._model),
            adapters=tuple(str(path) for path in adapters.files.values()),
            slots=self._capabilities.slots,
            context_tokens=self._capabilities.context_tokens,
            threads=self._threads,
            kv_type=self._precision.kv_type,
            flash_attention=self._precision.flash_attention,
        )
        return Replica(adapters, spec, start_timeout=self._start_timeout)


def _release(work: asyncio.Task[tuple[AdapterSet, tuple[Refusal, ...]]]) -> None:
    if not work.cancelled() and work.exception() is None:
        work.result()[0].release()
