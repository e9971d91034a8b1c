"""Composing a mix for vLLM against the time vLLM takes to load the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters.adapter import Adapter
from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.vllm import VllmEngine
from adapters.mix import Mix
from gateway.bench.options import Options, Progress
from gateway.bench.pairs import ratio
from gateway.bench.report import Metric, median
from kiki.errors import EngineError

MIXED = 4
STORE_MIXES = 1  # each mix takes the place of the one before
_ON_NEW_PAGES = {"compose": 1, "cold_compose": 0}  # and how many spares they find


@dataclass(frozen=True, slots=True)
class _Times:
    """Milliseconds of one way of composing, and of vLLM's load of the result, round by round."""

    composed: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)


async def measure(
    engine: VllmEngine, adapters: Sequence[Adapter], options: Options, progress: Progress
) -> dict[str, Metric]:
    """Start vLLM, whose store holds one mix, ask for one token of new mixes, and stop it.

    In each round four adapters on the spare slate, as the engine keeps one for a new mix; four of
    which one is another, written over the mix before; the same four with other weights; and, after
    a mix of one adapter, whose slate is too small, four on a new slate, with no spare. The times
    are the engine's own: from the sources on disk to the composed adapter in its work folder, and
    of the request that loads it, which is in use when that is answered.

    ``adapters`` are five or more. Raises EngineError where one doesn't fit.
    """
    names = [adapter.name for adapter in adapters[: MIXED + 1]]
    if refused := await engine.set_adapters(adapters[: MIXED + 1]):
        raise EngineError(f"The engine refused {refused[0].name}: {refused[0].reason}")
    progress("start vllm", 0, 1)
    await engine.start()
    progress("start vllm", 1, 1)
    four, others = names[:MIXED], names[1:]
    ways = {"compose": four, "recompose": others, "reweigh": others, "cold_compose": four}
    times = {way: _Times() for way in ways}
    size = 0
    try:
        await _ask(engine, four, 0)  # the first load warms vLLM up
        size = engine.store.used_bytes
        for number in range(1, 1 + options.rounds):
            for step, (way, mixed) in enumerate(ways.items()):
                if way in _ON_NEW_PAGES:
                    engine.store.keep_spare(0)
                    await _ask(engine, names[:1], number + step * options.rounds)
                    engine.store.keep_spare(_ON_NEW_PAGES[way] * size)
                await engine.store.settled()
                before = engine.store.compose_seconds, engine.servers[0].load_seconds
                await _ask(engine, mixed, number + step * options.rounds)
                times[way].composed.append((engine.store.compose_seconds - before[0]) * 1e3)
                times[way].loaded.append((engine.servers[0].load_seconds - before[1]) * 1e3)
            progress("compose", number, options.rounds)
    finally:
        await engine.stop()
    metrics = {"composed_mb": Metric(round(size / 1e6, 1), "MB", 1)}
    for way, found in times.items():
        metrics[f"{way}_vllm_ms"] = median(found.composed, "ms")
        metrics[f"{way}_over_load_vllm"] = ratio(found.composed, found.loaded)
    loads = [each for found in times.values() for each in found.loaded]
    return metrics | {"load_vllm_ms": median(loads, "ms")}


async def _ask(engine: VllmEngine, names: Sequence[str], number: int) -> None:
    """One token of a mix that was not asked for before."""
    mix = Mix.of({name: 0.2 + 0.001 * (number + at) for at, name in enumerate(names)})
    request = GenerateRequest((Message("user", "hi"),), mix, Sampling(1, temperature=0.0))
    await complete(engine, [request])
