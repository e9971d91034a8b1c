"""A panel: the same question to four mixes, in one batch against one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adapters.adapter import Adapter
from adapters.engines.base import Engine, GenerateRequest, Message, Sampling, complete
from adapters.mix import Mix
from gateway.bench.options import Options, Progress
from gateway.bench.report import Metric, median
from kiki.errors import EngineError

MIXES = 4
QUESTION = "Explain in detail how a program finds the longest line of a large text file."


async def measure(
    engine: Engine, adapters: Sequence[Adapter], options: Options, progress: Progress
) -> dict[str, Metric]:
    """Start the engine with four adapters, measure, stop it. Prompts are computed each time.

    Seconds are for all four answers. The ratio is of the time a token, since an answer may end
    early. Raises EngineError where an adapter doesn't fit the engine's base.
    """
    four = adapters[:MIXES]
    if refused := await engine.set_adapters(four):
        raise EngineError(f"The engine refused {refused[0].name}: {refused[0].reason}")
    await engine.start()
    try:
        name = engine.capabilities.name
        requests = [_request(Mix.single(adapter.name), options.tokens) for adapter in four]
        for adapter in four:  # the first use of weights reads them from disk
            await complete(engine, [_request(Mix.single(adapter.name), 1)])
        together, alone = await _compare(engine, requests, options.rounds, progress)
    finally:
        await engine.stop()
    pairs = zip(together, alone, strict=True)
    return {
        f"panel_{name}_s": median([seconds for seconds, _ in together], "s"),
        f"sequential_{name}_s": median([seconds for seconds, _ in alone], "s"),
        f"panel_{name}_tokens": median([tokens for _, tokens in together], "tokens"),
        f"panel_over_sequential_{name}": median(
            [(t / t_tokens) / (a / a_tokens) for (t, t_tokens), (a, a_tokens) in pairs], "ratio"
        ),
    }


async def _compare(
    engine: Engine, requests: Sequence[GenerateRequest], rounds: int, progress: Progress
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Seconds and tokens of the panel, and of the four runs in a row, in turn."""
    together, alone = [], []
    for number in range(rounds):
        if number % 2:
            alone.append(await _run(engine, [[request] for request in requests]))
        together.append(await _run(engine, [requests]))
        if number % 2 == 0:
            alone.append(await _run(engine, [[request] for request in requests]))
        progress(f"panel {engine.capabilities.name}", number + 1, rounds)
    return together, alone


async def _run(engine: Engine, batches: list[Sequence[GenerateRequest]]) -> tuple[float, int]:
    began = time.perf_counter()
    answers = [answer for batch in batches for answer in await complete(engine, batch)]
    took = time.perf_counter() - began
    return took, sum(answer.usage.completion_tokens for answer in answers)


def _request(mix: Mix, tokens: int) -> GenerateRequest:
    return GenerateRequest((Message("user", QUESTION),), mix, Sampling(tokens, temperature=0.0))
