"""A registry of metrics that knows what each of them means, for the table in the docs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# The buckets that OpenTelemetry's GenAI conventions ask for, in seconds.
GENAI_SECONDS = tuple(0.01 * 2**n for n in range(14))


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as Prometheus shows it: a counter's name ends with ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """Makes metrics in a registry of its own, with the process's memory and CPU time."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, meaning: str, *labels: str, values: Iterable[str] = ()) -> Counter:
        """``values`` of its one label stand at zero from the start, so that rates see the first."""
        self.described.append(Described(f"{name}_total", "counter", labels, meaning))
        counter = Counter(name, meaning, labels, registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self.described.append(Described(name, "gauge", labels, meaning))
        # Where several workers run, the one that was asked for metrics last tells.
        mode: Literal["livemostrecent"] = "livemostrecent"
        return Gauge(name, meaning, labels, registry=self.registry, multiprocess_mode=mode)

    def histogram(
        self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...]
    ) -> Histogram:
        self.described.append(Described(name, "histogram", labels, meaning))
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)

    def render(self) -> bytes:
        """Prometheus text format; where several workers run, of all of them."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
