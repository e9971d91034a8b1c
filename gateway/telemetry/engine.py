"""The engine and the queue in front of it."""

from __future__ import annotations

from adapters.engines.base import Usage
from gateway.admission.places import Places
from gateway.telemetry.metrics import Metrics

_QUEUE_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)


class EngineMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.queue_depth = self.gauge("kiki_queue_depth", "Requests that wait for the engine.")
        self.queue_seconds = self.histogram(
            "kiki_queue_seconds",
            "How long those that came to the engine had waited for their place.",
            buckets=_QUEUE_SECONDS,
        )
        self.rows_running = self.gauge("kiki_engine_rows", "Rows that the engine was given.")
        self.output_token_seconds = self.histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each token after a row's first, votes and revisions among the rows.",
            buckets=_TOKEN_SECONDS,
        )
        self.engine_circuit = self.gauge(
            "kiki_engine_circuit",
            "The circuit breaker of each server: 0 closed, 1 half-open, 2 open.",
            "server",
        )
        self.engine_ready = self.gauge("kiki_engine_ready", "1 while the engine is ready.")

    def watch_places(self, places: Places) -> None:
        """Tell, whenever it is asked, how many wait and run; and how long each has waited."""
        self.queue_depth.set_function(lambda: places.waiting)
        self.rows_running.set_function(lambda: places.rows_running)
        places.waited = self.queue_seconds.observe

    def count_row(self, usage: Usage, seconds: float) -> None:
        """Count a row that ended ``seconds`` after its first piece."""
        if usage.completion_tokens > 1:
            self.output_token_seconds.observe(seconds / (usage.completion_tokens - 1))
