"""Composing a mix for vLLM against the time vLLM takes to load the result."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.adapter import Adapter
from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.vllm import VllmEngine
from adapters.mix import Mix
from gateway.bench.options import Options, Progress
from gateway.bench.pairs import ratio
from gateway.bench.report import Metric, median
from kiki.errors import EngineError

MIXED = 4


async def measure(
    engine: VllmEngine, adapters: Sequence[Adapter], options: Options, progress: Progress
) -> dict[str, Metric]:
    """Start vLLM, ask for one token of a new mix in each round, and stop it.

    The times are the engine's own: from the sources on disk to the composed adapter in its work
    folder, and of the request that loads it. Raises EngineError where an adapter doesn't fit.
    """
    four = adapters[:MIXED]
    if refused := await engine.set_adapters(four):
        raise EngineError(f"The engine refused {refused[0].name}: {refused[0].reason}")
    progress("start vllm", 0, 1)
    await engine.start()
    progress("start vllm", 1, 1)
    names = [adapter.name for adapter in four]
    try:
        await _ask(engine, names, 0)  # the first load warms vLLM up
        composed, loaded = [], []
        for number in range(1, 1 + options.rounds):
            before = engine.store.compose_seconds, engine.servers[0].load_seconds
            await _ask(engine, names, number)
            composed.append((engine.store.compose_seconds - before[0]) * 1e3)
            loaded.append((engine.servers[0].load_seconds - before[1]) * 1e3)
            progress("compose", number, options.rounds)
    finally:
        await engine.stop()
    return {
        "compose_vllm_ms": median(composed, "ms"),
        "load_vllm_ms": median(loaded, "ms"),
        "compose_over_load_vllm": ratio(composed, loaded),
    }


async def _ask(engine: VllmEngine, names: Sequence[str], number: int) -> None:
    """One token of a mix that was not asked for before."""
    mix = Mix.of({name: 0.2 + 0.01 * (number + at) for at, name in enumerate(names)})
    request = GenerateRequest((Message("user", "hi"),), mix, Sampling(1, temperature=0.0))
    await complete(engine, [request])
