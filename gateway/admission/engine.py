"""The engine as the stages see it: it waits for places, and what it spends is counted."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

from adapters.adapter import Adapter, Refusal
from adapters.engines.base import (
    Capabilities,
    Delta,
    Engine,
    EngineState,
    GenerateRequest,
    Token,
    Usage,
)
from adapters.engines.breaker import CircuitState
from adapters.mix import Mix
from gateway.access.visit import Visit, current_visit
from gateway.admission.fair_queue import FairQueue
from gateway.admission.places import Places
from gateway.admission_settings import AdmissionSettings

log = logging.getLogger("kiki.prompts")

_QUEUE_PER_SLOT = 16


def places_for(engine: Engine, settings: AdmissionSettings) -> Places:
    """Places for what the engine can run at a time, and for a queue in front of it."""
    slots = engine.capabilities.slots
    ahead = slots if settings.queue_ahead is None else settings.queue_ahead
    limit = slots * _QUEUE_PER_SLOT if settings.queue_limit is None else settings.queue_limit
    return Places(slots + ahead, FairQueue(limit, bypass=slots))


class AdmittedEngine:
    """An engine of which ``generate`` waits for places first; all else is ``inner``'s own."""

    def __init__(
        self,
        engine: Engine,
        places: Places,
        *,
        log_prompts: bool = False,
        row_ended: Callable[[Usage, float], None] = lambda usage, seconds: None,
    ) -> None:
        """``row_ended`` is told of each row's usage, and the seconds since its first piece."""
        self.inner = engine
        self.places = places
        self._log_prompts = log_prompts
        self._row_ended = row_ended
        self.swaps = engine.swaps

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        """As the engine's. Raises QueueFullError too, at a request's first call alone."""
        visit = current_visit.get() or Visit("")
        tenant, mix = visit.caller.tenant, requests[0].mix
        async with self.places.hold(tenant, len(requests), mix, began=visit.began):
            visit.began = True
            if self._log_prompts:
                self._log(requests)
            unfinished: Counter[int] = Counter()
            first: dict[int, float] = {}
            try:
                async with aclosing(self.inner.generate(requests)) as deltas:
                    async for delta in deltas:
                        began = first.setdefault(delta.row, time.perf_counter())
                        if delta.usage is None:
                            unfinished[delta.row] += 1
                        else:
                            visit.tokens += delta.usage.prompt_tokens
                            visit.tokens += delta.usage.completion_tokens
                            unfinished.pop(delta.row, None)
                            self._row_ended(delta.usage, time.perf_counter() - began)
                        yield delta
            finally:
                # A row that is cancelled has no usage; its pieces are a token each, or more.
                visit.tokens += unfinished.total()

    def _log(self, requests: Sequence[GenerateRequest]) -> None:
        for request in requests:
            said = request.prompt or [{one.role: one.content} for one in request.messages]
            log.info("prompt (%s): %s", request.mix, json.dumps(said, ensure_ascii=False))

    @property
    def state(self) -> EngineState:
        return self.inner.state

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        return self.inner.circuits

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def adapters(self) -> tuple[str, ...]:
        return self.inner.adapters

    @property
    def last_delta(self) -> float:
        return self.inner.last_delta

    async def start(self) -> None:
        await self.inner.start()

    async def stop(self) -> None:
        await self.inner.stop()

    async def set_adapters(self, adapters: Sequence[Adapter]) -> tuple[Refusal, ...]:
        return await self.inner.set_adapters(adapters)

    def fitting(self, mix: Mix) -> Mix:
        return self.inner.fitting(mix)

    async def ready(self) -> bool:
        return await self.inner.ready()

    async def tokenize(self, request: GenerateRequest, *, answer: bool = True) -> list[Token]:
        return await self.inner.tokenize(request, answer=answer)
