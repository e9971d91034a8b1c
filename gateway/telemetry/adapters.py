"""Adapters: which are served and used, and what a change of mix takes."""

from __future__ import annotations

from adapters.engines.swaps import SWAP_METHODS, SwapMethod
from gateway.telemetry.metrics import Metrics
from gateway.turn import Mount

# From a change of slots in memory to a server that starts with a large model.
_SWAP_SECONDS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5, 1, 5, 20, 60, 300)


class AdapterMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.adapter_turns = self.counter(
            "kiki_adapter_turns", "Turns in which an adapter was active.", "adapter"
        )
        self.adapters_left_out = self.counter(
            "kiki_adapters_left_out",
            "Adapters of a chosen mix that the engine had no room for.",
            "adapter",
        )
        self.adapters_served = self.gauge("kiki_adapters", "Adapters being served.")
        self.adapters_idle = self.gauge(
            "kiki_adapters_idle", "Adapters being served that no running request uses."
        )
        self.adapters_refused = self.gauge(
            "kiki_adapters_refused", "Adapters of the folder that are not fit to serve."
        )
        self.mixes = self.gauge(
            "kiki_active_mixes", "Different mixes that run, the bare base among them."
        )
        self.swap_seconds = self.histogram(
            "kiki_adapter_swap_seconds",
            "How long a mix took to become active, by how it did.",
            "method",
            buckets=_SWAP_SECONDS,
        )
        for method in SWAP_METHODS:
            self.swap_seconds.labels(method)

    def count_swap(self, method: SwapMethod, seconds: float) -> None:
        """Count a swap that an engine reports, from any thread."""
        self.swap_seconds.labels(method).observe(seconds)

    def count_mount(self, mount: Mount) -> None:
        for name in mount.mix.names:
            self.adapter_turns.labels(name).inc()
        for name in mount.left_out:
            self.adapters_left_out.labels(name).inc()
