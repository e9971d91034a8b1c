"""Stage 6: the answer is looked at for bias, and revised where that is still possible."""

from __future__ import annotations

from adapters.engines.base import Engine
from antibias.review import Embed, Reply, review
from gateway.generate import generator
from gateway.turn import Turn


class AntibiasStage:
    """Reviews the whole answer; what has streamed already is noted, never rewritten."""

    name = "antibias"

    def __init__(self, engine: Engine, embed: Embed) -> None:
        self._engine = engine
        self._embed = embed

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        if not turn.ask.options.antibias:
            decision["skipped"] = "switched off"
            return
        turn.review = await review(
            turn.ask.question,
            turn.answer,
            generate=generator(self._engine, turn, Reply),
            embed=self._embed,
            may_revise=turn.held,
        )
        if turn.held:
            turn.answer = turn.review.text
        decision |= {
            "action": turn.review.action,
            "findings": [
                {
                    "type": finding.type,
                    "span": finding.span,
                    "confidence": round(finding.confidence, 4),
                }
                for finding in turn.review.findings
            ],
            "tokens": turn.review.tokens,
            "note": turn.review.note,
        }
