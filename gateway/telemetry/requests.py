"""Requests: how many, how they ended, how long they took."""

from __future__ import annotations

from typing import Literal

from gateway.telemetry.metrics import GENAI_SECONDS, Metrics

Operation = Literal["chat", "text_completion"]
OPERATIONS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/responses": "chat",
}
"""The paths that generate, by the name that OpenTelemetry's GenAI conventions give them."""


class RequestMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.requests = self.counter(
            "kiki_requests",
            "Requests that generate, by model asked for and HTTP status.",
            "model",
            "status",
        )
        self.rejections = self.counter("kiki_rejections", "Requests refused, by reason.", "reason")
        self.broken_streams = self.counter(
            "kiki_broken_streams",
            "Streams that ended with an error event; their HTTP status had been 200.",
            "reason",
        )
        self.tasks = self.gauge(
            "kiki_tasks", "Tasks in the event loop; they fall back when it is idle."
        )
        self.duration_seconds = self.histogram(
            "gen_ai_server_request_duration_seconds",
            "Time of a whole request that generates.",
            "gen_ai_operation_name",
            buckets=GENAI_SECONDS,
        )

    def count_request(self, path: str, model: str, status: int, seconds: float) -> None:
        """Count a request that has ended, where its path is one that generates."""
        operation = OPERATIONS.get(path)
        if operation is not None:
            self.requests.labels(model, str(status)).inc()
            self.duration_seconds.labels(operation).observe(seconds)
