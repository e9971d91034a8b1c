"""What recall, writing and projecting cost, by how much one owner's memory holds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from gateway.bench.report import Metric, Report
from memory.bench import measure as measure_memory

Progress = Callable[[str, int, int], None]
_UNITS = {"ms": "ms", "mb": "MB", "s": "1/s"}


def measure(sizes: Sequence[int], progress: Progress) -> Report:
    """The embedded stores, filled with each number of episodes of one owner; the embedding is
    left out. What doesn't depend on the size is told of the largest."""
    metrics: dict[str, Metric] = {}
    for done, episodes in enumerate(sorted(sizes)):
        progress("sizes", done, len(sizes))
        # A process each, so that what one size took is not counted to the next.
        with (
            tempfile.TemporaryDirectory(prefix="kiki-bench-") as folder,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
        ):
            measured = process.submit(measure_memory, Path(folder), episodes).result()
        for name in ("recall_p50_ms", "recall_p95_ms"):
            value = getattr(measured, name)
            metrics[f"{name}_{_short(episodes)}"] = Metric(round(value, 3), "ms", measured.queries)
        counts = {"ack_p50_ms": measured.writes, "project_per_s": measured.episodes}
        for name, value in asdict(measured).items():
            if name.startswith(("ack", "project", "grown", "queries_grown")):
                unit = _UNITS[name.rsplit("_", 1)[1]]
                metrics[name] = Metric(round(value, 3), unit, counts.get(name, 1))
    progress("sizes", len(sizes), len(sizes))
    return Report("memory", metrics, {"episodes": list(sizes)})


def _short(episodes: int) -> str:
    """``10k`` for 10,000."""
    return f"{episodes // 1000}k" if episodes % 1000 == 0 else str(episodes)
