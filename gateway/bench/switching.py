"""Changing the adapter: slots against what mlx_lm has for it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import mlx_lm

from adapters.engines.mlx.slots import Slots
from adapters.forms import read_lora
from adapters.mix import Mix
from gateway.bench.options import Options, Progress
from gateway.bench.pairs import in_turn, ratio, timed
from gateway.bench.random_base import RandomBase
from gateway.bench.report import Metric, median
from gateway.bench.stock import Stock

ROWS = 8
SWITCHES = 400  # a round


def measure(base: RandomBase, options: Options, progress: Progress) -> dict[str, Metric]:
    """A switch is one row of a batch of eight changing its mix of four adapters.

    The adapters are in memory, as those are that the engine's budget holds. ``first_use_p50_ms``
    is what another one costs: read from disk, checked, bound, in use.
    """
    slots = Slots.patch(mlx_lm.load(str(base.model))[0])
    names = [path.name for path in base.adapters]
    for path in base.adapters:
        slots.bind(path.name, read_lora(path))
    stock = Stock(base.model, base.adapters[0])
    batches, others = _batches(names), itertools.cycle(base.adapters[::-1])
    switches: list[float] = []

    def switch() -> float:
        took = [_time_use(slots, next(batches)) for _ in range(SWITCHES)]
        switches.extend(took)
        progress("switch", len(switches) // SWITCHES, options.rounds)
        return statistics.median(took)

    def first_use() -> None:
        path = next(others)
        slots.bind("another", read_lora(path))
        slots.use([Mix.single("another")])

    switch_s, first_s, reload_s, unpatch_s = in_turn(
        options.rounds,
        switch,
        lambda: timed(first_use),
        lambda: timed(lambda: stock.reload(next(others))),
        lambda: timed(lambda: stock.unpatch_and_load(next(others))),
    )
    return {
        "switch_p50_ms": _milliseconds(switches),
        "first_use_p50_ms": _milliseconds(first_s),
        "reload_p50_ms": _milliseconds(reload_s),
        "unpatch_p50_ms": _milliseconds(unpatch_s),
        "reload_over_switch": ratio(reload_s, switch_s),
        "unpatch_over_switch": ratio(unpatch_s, switch_s),
        "wrapped_modules": Metric(len(slots.modules), "modules", 1),
    }


def _batches(names: list[str]) -> Iterator[list[Mix]]:
    """Batches of which each differs from the one before in one row's weights."""
    rows = [Mix.of(dict.fromkeys(names, 0.25)) for _ in range(ROWS)]
    for number in itertools.count():
        first = 0.1 + 0.01 * (number % 50)
        rest = dict.fromkeys(names[1:], (1 - first) / 3)
        rows[number % ROWS] = Mix.of({names[0]: first, **rest})
        yield list(rows)


def _time_use(slots: Slots, mixes: list[Mix]) -> float:
    began = time.perf_counter()
    slots.use(mixes)
    return time.perf_counter() - began


def _milliseconds(seconds: list[float]) -> Metric:
    return median([value * 1e3 for value in seconds], "ms")
