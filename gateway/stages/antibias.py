"""Stage 6: the answer is looked at for bias, and revised where that is still possible."""

from __future__ import annotations

import math
from dataclasses import replace

from adapters.engines.base import Engine
from antibias.prompt import Embed
from antibias.prompt import Reply
from antibias.review import DEFAULT_SETTINGS, review
from gateway.generate import generator
from gateway.turn import Turn

_NOTE_ONLY = replace(DEFAULT_SETTINGS, revise_from=math.inf)


class AntibiasStage:
    """Reviews the whole answer; what has streamed already is noted, never rewritten."""

    name = "antibias"

    def __init__(self, engine: Engine, embed: Embed) -> None:
        self._engine = engine
        self._embed = embed

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        if not turn.look.antibias:
            decision["skipped"] = "switched off, by the caller or for this domain"
            return
        budget = turn.look.budget
        budget.begin()
        settings = DEFAULT_SETTINGS if turn.rewritable else _NOTE_ONLY
        found = await review(
            turn.ask.question,
            turn.answer,
            generate=generator(self._engine, turn, Reply, "revision"),
            embed=self._embed,
            settings=replace(
                settings, token_budget=budget.tokens_left, time_budget=budget.seconds_left
            ),
        )
        budget.spend(found.tokens)
        if turn.rewritable:
            turn.answer = found.text
        decision |= {
            "action": found.action,
            "findings": [
                {
                    "type": finding.type,
                    "span": finding.span,
                    "confidence": round(finding.confidence, 4),
                }
                for finding in found.findings
            ],
            "tokens": found.tokens,
            "note": found.note,
            "budget": budget.state(),
        }
