"""All metrics of one gateway."""

from __future__ import annotations

from collections.abc import Callable

from gateway.telemetry.adapters import AdapterMetrics
from gateway.telemetry.engine import EngineMetrics
from gateway.telemetry.memory import MemoryMetrics
from gateway.telemetry.quality import QualityMetrics
from gateway.telemetry.requests import RequestMetrics
from gateway.telemetry.routing import RoutingMetrics
from gateway.telemetry.turns import TurnMetrics
from gateway.turn import Turn


class Telemetry(
    RequestMetrics,
    TurnMetrics,
    EngineMetrics,
    RoutingMetrics,
    AdapterMetrics,
    MemoryMetrics,
    QualityMetrics,
):
    """The metrics of one gateway, in a registry of its own.

    ``turn_ended`` is called with each turn that is counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turn_ended: Callable[[Turn], None] | None = None

    def count_turn(self, turn: Turn) -> None:
        """Count a finished turn."""
        self.count_stages(turn)
        self.count_mount(turn.mount)
        self.count_recall(turn)
        if turn.route:
            self.count_route(turn.route)
        if turn.verdict:
            self.count_verdict(turn.verdict)
        if turn.review:
            self.count_review(turn.review)
        if self.turn_ended:
            self.turn_ended(turn)
