"""Everything that runs behind the HTTP surface, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from adapters.catalog import Catalog
from adapters.engines.base import Engine
from adapters.policy import SHIPPED_POLICY, Policy
from antibias.detector import default_detector
from antibias.review import ReviewSettings
from gateway.access.keyring import Keyring
from gateway.adapter_set import AdapterSet
from gateway.admission.draining import Drain
from gateway.admission.engine import AdmittedEngine, places_for
from gateway.advising import build_advisor
from gateway.asking import asking
from gateway.assets import ModelFiles
from gateway.engines import Choice, Machine, build_engine, choose_engine
from gateway.judging import Judges, judging
from gateway.models import Models
from gateway.once import Once
from gateway.pipeline import Pipeline
from gateway.second_look import SecondLookPolicy
from gateway.settings import Settings
from gateway.sleeping import Nights, sleeping
from gateway.stages.antibias import AntibiasStage
from gateway.stages.infer import InferStage
from gateway.stages.mount import MountStage
from gateway.stages.negotiate import NegotiateStage
from gateway.stages.recall import RecallStage
from gateway.stages.route import RouteStage
from gateway.stages.write import WriteStage
from gateway.telemetry import Telemetry
from gateway.tracing import tracing
from gateway.workers.memory import SharedMemory, own_arguments, served
from kiki.errors import StoreError
from memory import Aeon, MemoryStatus
from memory.cerebellum import Cerebellum
from routing.conversation import Conversations
from routing.domains import DomainTable, load_domains
from routing.embedder import Embedder
from routing.neighbours import Neighbours, loaded_once
from routing.router import PACKAGED as ROUTER_FILES
from routing.router import Router

log = logging.getLogger("kiki.gateway")

PROBE_SECONDS = 10.0


class Probe:
    """Readiness by a real token: one that a request got lately, else one asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = asyncio.Lock()
        self._at = float("-inf")

    async def ready(self) -> bool:
        if self._engine.state != "ready":
            return False
        async with self._lock:
            # A busy engine gives tokens to others; a probe would only queue behind them.
            proved = max(self._at, self._engine.last_delta)
            if time.monotonic() - proved < PROBE_SECONDS:
                return True
            ready = await self._engine.ready()
            if ready:
                self._at = time.monotonic()
            return ready


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints use. ``neighbours`` reads its file when it is first called."""

    settings: Settings
    table: DomainTable
    embedder: Embedder
    conversations: Conversations
    neighbours: Callable[[], Neighbours]
    aeon: Aeon
    nights: Nights
    engine: AdmittedEngine
    choice: Choice
    adapter_set: AdapterSet
    models: Models
    pipeline: Pipeline
    once: Once
    probe: Probe
    telemetry: Telemetry
    keyring: Keyring
    _stack: AsyncExitStack
    drain: Drain = field(default_factory=Drain)
    started_at: float = field(default_factory=time.time)
    _clock: float = field(default_factory=time.monotonic)

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._clock

    def memory_status(self) -> MemoryStatus:
        """The memory's own word, or that it can't give one."""
        try:
            return self.aeon.status()
        except StoreError as error:
            return MemoryStatus(state="degraded", episodes=0, lag=0, last_error=str(error))

    @classmethod
    async def start(
        cls, settings: Settings, files: ModelFiles, shared: SharedMemory | None = None
    ) -> Services:
        """Load and start all parts. Raises KikiError when one of them can't.

        With ``shared`` this is one of several workers, of which one owns the memory.
        """
        keyring = Keyring.of(settings)
        table = load_domains()
        choice = choose_engine(settings, Machine.here())
        log.info("engine: %s (%s)", choice.engine, choice.reason)
        engine = build_engine(settings, choice, files.base)
        telemetry = Telemetry()
        engine.swaps.listener = telemetry.count_swap
        models = Models(table, ())
        catalog = Catalog(settings.adapters_dir, base=settings.adapters_base)
        adapter_set = AdapterSet(catalog, engine, models)

        async def start_engine() -> None:
            await adapter_set.refresh()
            await engine.start()
            if len(engine.adapters) != len(adapter_set.serving):
                await adapter_set.refresh()  # what only a loaded model could tell

        async with AsyncExitStack() as stack:
            telemetry.turn_ended = stack.enter_context(tracing(settings))
            stack.push_async_callback(engine.stop)
            starting = stack.enter_context(_cancelled(asyncio.create_task(start_engine())))
            embedder = await asyncio.to_thread(
                Embedder, files.embedder, threads=settings.router_threads
            )
            router = Router.load(
                table=table, embedding_id=embedder.id, threshold=settings.router_threshold
            )
            advisor = await asyncio.to_thread(
                build_advisor, settings, table, embedder.token_ids, telemetry.count_advice
            )
            conversations = Conversations(router, embedder, advisor)
            folder = settings.data_dir / "memory"
            ask = await stack.enter_async_context(asking(settings, engine))
            cerebellum = Cerebellum(
                ask,
                timeout_s=settings.cerebellum_timeout_ms / 1000,
                decided=telemetry.count_decision,
            )
            aeon: Aeon
            if shared is None or shared.owner:
                aeon = Aeon(
                    folder,
                    embedding_id=embedder.id,
                    embed=embedder.embed,
                    cerebellum=cerebellum,
                    stores=settings.stores(),
                )
                await asyncio.to_thread(aeon.open)
                stack.push_async_callback(asyncio.to_thread, aeon.close)
            else:
                aeon = cast(Aeon, shared.remote())
                settings = settings.model_copy(update={"sleep_at": None})  # the owner sleeps
            judges = await stack.enter_async_context(judging(settings, engine))
            (await asyncio.to_thread(default_detector)).check(embedder.id)
            nights = await stack.enter_async_context(sleeping(aeon, settings, ask))
            if shared and shared.owner:
                own = own_arguments(embedder.count_tokens, ask, lambda: False)
                stack.enter_context(served(aeon, shared, own))
            await starting
            if settings.adapters_watch:
                await stack.enter_async_context(adapter_set.watched())
            places = places_for(engine, settings)
            telemetry.watch_places(places)
            admitted = AdmittedEngine(
                engine,
                places,
                log_prompts=settings.log_prompts,
                row_ended=telemetry.count_row,
            )
            return cls(
                settings=settings,
                table=table,
                embedder=embedder,
                conversations=conversations,
                neighbours=loaded_once(
                    partial(Neighbours.read, ROUTER_FILES, embedding_id=embedder.id)
                ),
                aeon=aeon,
                nights=nights,
                engine=admitted,
                choice=choice,
                adapter_set=adapter_set,
                models=models,
                pipeline=_pipeline(
                    settings, table, embedder, conversations, aeon, admitted, judges
                ),
                once=Once(aeon),
                probe=Probe(engine),
                telemetry=telemetry,
                keyring=keyring,
                _stack=stack.pop_all(),
            )

    async def stop(self) -> None:
        """Close the memory, then stop the engine."""
        await self._stack.aclose()


@contextmanager
def _cancelled(task: asyncio.Task[None]) -> Iterator[asyncio.Task[None]]:
    """A task that doesn't outlive a start which failed elsewhere."""
    try:
        yield task
    finally:
        task.cancel()


def _pipeline(
    settings: Settings,
    table: DomainTable,
    embedder: Embedder,
    conversations: Conversations,
    aeon: Aeon,
    engine: Engine,
    judges: Judges,
) -> Pipeline:
    policy = Policy.load(settings.policy_file or SHIPPED_POLICY)
    base = settings.adapters_base or settings.model or engine.capabilities.model
    base_only = policy.verdicts(base)
    look = SecondLookPolicy(table, settings.second_look_tokens, settings.second_look_seconds)
    return Pipeline(
        route=RouteStage(embedder, conversations),
        mount=MountStage(engine, table, base_only, look),
        recall=RecallStage(
            aeon,
            budget_tokens=settings.recall_tokens,
            limit=settings.recall_limit,
            count_tokens=embedder.count_tokens,
        ),
        infer=InferStage(engine),
        negotiate=NegotiateStage(engine, embedder.embed, judges, settings.catfish_below),
        antibias=AntibiasStage(
            engine,
            embedder.embed,
            ReviewSettings(
                revise_from=settings.antibias_threshold, refuse=settings.antibias_refuse
            ),
        ),
        write=WriteStage(aeon),
    )
