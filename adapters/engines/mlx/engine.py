"""MLX: Apple's arrays, one model in memory, adapters mixed row by row in one batch."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.adapter import Adapter, Refusal
from adapters.engines.base import (
    Capabilities,
    Delta,
    EngineState,
    GenerateRequest,
    Message,
    Sampling,
    Token,
)
from adapters.engines.breaker import CircuitState
from adapters.engines.child import FIRST_DELAY, LONGEST_DELAY
from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.job import Job, Prompt
from adapters.engines.mlx.worker import Worker
from adapters.engines.swaps import Swaps
from adapters.mix import Mix
from kiki.errors import AdapterError, EngineUnavailableError, KikiError, UnknownAdapterError

if TYPE_CHECKING:
    from adapters.engines.mlx.prompts import Prompts
    from adapters.engines.mlx.runner import Runner, RunnerStats

log = logging.getLogger("kiki.adapters")

PROBE = GenerateRequest((Message("user", "hi"),), sampling=Sampling(1, 0.0))
PROBE_SECONDS = 60.0
DEFAULTS = MlxConfig()


class MlxEngine:
    """A model that mlx_lm reads, with adapters bound to its modules and mixed for each row.

    ``model`` is a folder or a name on the hub. The model lives in one thread; a failure there
    ends the rows it touches, and a thread that ends is started again after 0.5 s, then 1, 2 ...
    30 s. Which of batching and a quantised KV cache it gives: see ``MlxConfig``.
    """

    def __init__(self, model: Path | str, config: MlxConfig = DEFAULTS) -> None:
        self._model = model
        self._config = config
        self._capabilities = Capabilities(
            name="mlx",
            model=Path(model).name,
            context_tokens=config.context_tokens,
            slots=1 if config.kv_bits else config.slots,
            amplifies=config.probe is not None,
        )
        self._wanted: tuple[Adapter, ...] = ()
        self._served: dict[str, Adapter] = {}
        self._changing = asyncio.Lock()
        self._worker: Worker | None = None
        self._runner: Runner | None = None
        self._prompts: Prompts | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self.state: EngineState = "stopped"
        self.refused: tuple[Refusal, ...] = ()
        self.restarts = 0
        self.last_delta = float("-inf")
        self.swaps = Swaps()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        return {}

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._served)

    @property
    def stats(self) -> RunnerStats | None:
        """What runs now and what was counted; None while no model is loaded."""
        return self._runner.stats if self._runner else None

    async def start(self) -> None:
        await self._launch()

    async def stop(self) -> None:
        self.state = "stopped"
        if self._restarting:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
            self._restarting = None
        await self._end_worker()
        self.state = "stopped"

    async def set_adapters(self, adapters: Sequence[Adapter]) -> tuple[Refusal, ...]:
        """As the protocol says; while no model is loaded they are noted and checked by its start.

        What that start refuses is in ``refused`` after it.
        """
        async with self._changing:
            self._wanted = tuple(adapters)
            if self._runner is not None and self._worker is not None:
                try:
                    self.refused = await self._serve(self._runner, self._worker)
                    return self.refused
                except EngineUnavailableError as error:  # the restart will serve them
                    log.warning("the adapters wait for the MLX engine's restart: %s", error)
            self._served = {adapter.name: adapter for adapter in adapters}
            return ()

    def fitting(self, mix: Mix) -> Mix:
        return mix

    async def ready(self) -> bool:
        if self.state != "ready":
            return False
        try:
            await self._probe()
        except EngineUnavailableError as error:
            log.warning("%s", error)
            return False
        return True

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        adapters = [self._find(request.mix) for request in requests]
        if self.state != "ready":
            raise self._unavailable()
        async with contextlib.aclosing(self._rows(requests, adapters)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, request: GenerateRequest, *, answer: bool = True) -> list[Token]:
        if self._worker is None or self._prompts is None:
            raise self._unavailable()
        return await self._worker.render(partial(self._prompts.tokenize, answer=answer), request)

    async def _rows(
        self, requests: Sequence[GenerateRequest], adapters: Sequence[Mapping[str, Adapter]]
    ) -> AsyncGenerator[Delta, None]:
        worker, runner, prompts = self._worker, self._runner, self._prompts
        if worker is None or runner is None or prompts is None:
            raise self._unavailable()
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Delta | Exception] = asyncio.Queue()

        def emit(item: Delta | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads on
                loop.call_soon_threadsafe(queue.put_nowait, item)

        jobs: list[Job] = []
        wanted = frozenset(key for each in adapters for key in each)
        # Before anything is awaited: from here on the adapters are the request's, as they are now.
        worker.post(partial(runner.want, wanted))
        try:
            for row, (request, versions) in enumerate(zip(requests, adapters, strict=True)):
                prompt = await worker.render(prompts.make, request)
                jobs.append(self._job(row, request, versions, prompt, emit))
            for job in jobs:
                worker.post(partial(runner.submit, job))
            unfinished = len(jobs)
            while unfinished:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                self.last_delta = time.monotonic()
                yield item
                unfinished -= item.finish_reason is not None
        finally:
            with contextlib.suppress(EngineUnavailableError):
                for job in jobs:
                    worker.post(partial(runner.cancel, job))
                worker.post(partial(runner.unwant, wanted))

    def _job(
        self,
        row: int,
        request: GenerateRequest,
        adapters: Mapping[str, Adapter],
        prompt: Prompt,
        emit: Callable[[Delta | Exception], None],
    ) -> Job:
        weights = dict(request.mix.weights)
        room = self._config.context_tokens - len(prompt.tokens)
        return Job(
            row=row,
            prompt=prompt,
            mix=Mix(tuple((key, weights[each.name]) for key, each in adapters.items())),
            adapters=adapters,
            sampling=request.sampling,
            max_tokens=min(request.sampling.max_tokens, room),
            reuse=any(message.role == "assistant" for message in request.messages),
            emit=emit,
            gain=self._config.probe_gain if request.amplify and self._config.probe else 1.0,
        )

    def _find(self, mix: Mix) -> dict[str, Adapter]:
        """The mix's adapters as they are served now, under keys that name their versions."""
        unknown = [name for name in mix.names if name not in self._served]
        if unknown:
            raise UnknownAdapterError(
                f"The engine has no adapter {unknown[0]!r}.",
                param=f"kiki.adapters.{unknown[0]}",
                fix=f"Loaded: {', '.join(self._served) or 'none'}.",
            )
        return {_key(adapter): adapter for adapter in map(self._served.__getitem__, mix.names)}

    async def _launch(self) -> None:
        self.state = "starting"
        loop = asyncio.get_running_loop()

        def ended(error: Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._ended, worker, error)

        worker = self._worker = Worker(self._model, self._config, self.swaps, ended)
        try:
            runner = await asyncio.wrap_future(worker.start())
            self._prompts = runner.prompts()
            self._capabilities = replace(
                self._capabilities,
                slots=runner.slots,
                variables=self._prompts.variables,
                vocabulary=self._prompts.vocabulary,
            )
            async with self._changing:
                self._runner = runner
                self.refused = await self._serve(runner, worker)
            await self._probe()
        except BaseException as error:
            await self._end_worker()
            self.state = "down"
            if isinstance(error, Exception) and not isinstance(error, EngineUnavailableError):
                # Whatever it is, the restarts must go on.
                raise EngineUnavailableError(f"The MLX engine did not start: {error!r}.") from error
            raise
        self.state = "ready"

    async def _serve(self, runner: Runner, worker: Worker) -> tuple[Refusal, ...]:
        """Check what is new, and serve what fits; in memory as far as the budget goes."""
        served: dict[str, Adapter] = {}
        refusals = []
        for adapter in self._wanted:
            key = _key(adapter)
            if runner.served.get(key) != adapter:
                try:
                    prepared = await worker.read(runner.check, adapter)
                except AdapterError as error:
                    log.error("adapter %s left out: %s", adapter.name, error)
                    refusals.append(Refusal(adapter.name, adapter.path, str(error)))
                    continue
                worker.post(partial(runner.offer, key, prepared))
            served[key] = adapter
        gone = [key for key in runner.served if key not in served]
        runner.served = served
        self._served = {adapter.name: adapter for adapter in served.values()}
        for key in gone:
            worker.post(partial(runner.drop, key))
        return tuple(refusals)

    async def _probe(self) -> None:
        """Generate one token. Raises EngineUnavailableError with what stood in the way."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                rows = self._rows([PROBE], [{}])
                async with contextlib.aclosing(rows) as deltas:
                    async for _ in deltas:
                        pass
        except TimeoutError as error:
            raise EngineUnavailableError(
                f"The MLX engine generated no token in {PROBE_SECONDS:.0f} s."
            ) from error
        except KikiError as error:
            raise EngineUnavailableError(
                f"The MLX engine could not generate a token: {error}"
            ) from error

    def _ended(self, worker: Worker, error: Exception | None) -> None:
        if worker is self._worker and self.state == "ready":
            self.state = "down"
            self._worker, self._runner, self._prompts = None, None, None
            log.error("the MLX engine ended: %s", error)
            self._restarting = asyncio.create_task(self._restart(), name="mlx-restart")

    async def _restart(self) -> None:
        delay = FIRST_DELAY
        while True:
            self._retry_at = asyncio.get_running_loop().time() + delay
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            gc.collect()  # the old model lies in reference cycles; memory may not hold two
            try:
                await self._launch()
            except EngineUnavailableError as error:
                log.error("restart failed: %s", error)
            else:
                self.restarts += 1
                log.warning("the MLX engine was restarted (%d so far)", self.restarts)
                return

    async def _end_worker(self) -> None:
        worker, self._worker, self._runner, self._prompts = self._worker, None, None, None
        if worker:
            worker.stop()
            await asyncio.to_thread(worker.join)

    def _unavailable(self) -> EngineUnavailableError:
        wait = self._retry_at - asyncio.get_running_loop().time()
        return EngineUnavailableError(
            f"The engine is {self.state}.",
            retry_after=max(1.0, wait),
            fix="Try again shortly; it restarts by itself.",
        )


def _key(adapter: Adapter) -> str:
    """An adapter's version: another key for other files of the same name."""
    return f"{adapter.name}@{adapter.fingerprint}"
