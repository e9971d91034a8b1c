"""Stage 1: which domains the question is about."""

from __future__ import annotations

import asyncio

from gateway.turn import Turn
from routing.conversation import Conversations, Limits, Said
from routing.embedder import Embedder


class RouteStage:
    """Embeds the question once, for itself and for the memory, and asks the router."""

    name = "route"

    def __init__(self, embedder: Embedder, conversations: Conversations) -> None:
        self._embedder = embedder
        self._conversations = conversations

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        ask, options = turn.ask, turn.ask.options
        if options.adapters is not None:
            if options.memory:
                with turn.waiting():
                    vectors = await asyncio.wrap_future(self._embedder.submit([ask.question]))
                turn.vector = vectors[0]
            decision["skipped"] = "the caller named the adapters"
            return
        limits = Limits(options.threshold, options.top_k, options.intent)
        before = [Said(message.role, message.content) for message in ask.before]
        with turn.waiting():
            heard = await self._conversations.hear(ask.question, before)
        routed = self._conversations.decide(heard, limits)
        turn.vector, turn.route = routed.vector, routed.decision
        decision |= {
            "domains": {domain.name: round(domain.score, 4) for domain in turn.route.active},
            "threshold": round(turn.route.threshold, 4),
            "confidence": round(turn.route.confidence, 4),
            "fallback": turn.route.fallback,
        }
        if routed.stickiness.share:
            decision["conversation"] = routed.stickiness.effect
