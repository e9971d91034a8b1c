"""Stage 1: which domains the question is about."""

from __future__ import annotations

import asyncio

from gateway.turn import Turn
from routing.embedder import Embedder
from routing.router import Router


class RouteStage:
    """Embeds the question once, for itself and for the memory, and asks the router."""

    name = "route"

    def __init__(self, embedder: Embedder, router: Router, threshold: float | None) -> None:
        self._embedder = embedder
        self._router = router
        self._threshold = threshold

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        ask, options = turn.ask, turn.ask.options
        routed = options.adapters is None
        if routed or options.memory:
            with turn.waiting():
                vectors = await asyncio.to_thread(self._embedder.embed, [ask.question])
            turn.vector = vectors[0]
        if not routed or turn.vector is None:
            decision["skipped"] = "the caller named the adapters"
            return
        turn.route = self._router.route(
            turn.vector,
            threshold=options.threshold or self._threshold,
            top_k=options.top_k,
            within=options.intent,
        )
        decision |= {
            "domains": {domain.name: round(domain.score, 4) for domain in turn.route.active},
            "threshold": round(turn.route.threshold, 4),
            "confidence": round(turn.route.confidence, 4),
            "fallback": turn.route.fallback,
        }
