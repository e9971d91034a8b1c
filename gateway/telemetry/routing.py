"""Routing: what prompts are about, how sure the router is, what its advisor does."""

from __future__ import annotations

from bisect import bisect_right
from typing import get_args

from gateway.telemetry.metrics import Metrics
from routing.advisor import Outcome
from routing.router import RouteDecision

CONFIDENCES = ("0-0.25", "0.25-0.5", "0.5-0.75", "0.75-0.9", "0.9-1")
_FROM = (0.25, 0.5, 0.75, 0.9)


class RoutingMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.routes = self.counter(
            "kiki_routing_decisions",
            "Turns that the router decided, by their first domain and the highest score.",
            "domain",
            "confidence",
        )
        self.advice = self.counter(
            "kiki_advice",
            "Calls of the router's advisor by outcome; all but used left the router alone.",
            "outcome",
            values=get_args(Outcome),
        )

    def count_advice(self, outcome: str) -> None:
        self.advice.labels(outcome).inc()

    def count_route(self, route: RouteDecision) -> None:
        domain = route.active[0].name if route.active else "base"
        confidence = CONFIDENCES[bisect_right(_FROM, route.confidence)]
        self.routes.labels(domain, confidence).inc()
