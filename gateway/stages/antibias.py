"""Stage 6: the answer is looked at for bias, and revised where that is still possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from adapters.engines.base import Engine
from antibias.detector import Finding
from antibias.prompt import Embed, Reply
from antibias.review import DEFAULT_SETTINGS, ReviewSettings, review
from gateway.generate import generator
from gateway.turn import Turn


class AntibiasStage:
    """Reviews the whole answer; what has streamed already is noted, never rewritten.

    Revisions are written as the answer was: with the neurons of the engine's probe amplified,
    where it has one.
    """

    name = "antibias"

    def __init__(
        self, engine: Engine, embed: Embed, settings: ReviewSettings = DEFAULT_SETTINGS
    ) -> None:
        self._engine = engine
        self._embed = embed
        self._settings = settings

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        if not turn.look.antibias:
            decision["skipped"] = "switched off, by the caller or for this domain"
            return
        budget = turn.look.budget
        budget.begin()
        settings = self._settings
        if not turn.rewritable:
            settings = replace(settings, revise_from=math.inf)
        found = await review(
            turn.ask.question,
            turn.answer,
            generate=generator(self._engine, turn, Reply, "revision", amplify=True),
            embed=self._embed,
            settings=replace(
                settings, token_budget=budget.tokens_left, time_budget=budget.seconds_left
            ),
        )
        budget.spend(found.tokens)
        turn.review = found
        if turn.rewritable:
            turn.answer = found.text
        decision |= {
            "action": found.action,
            "findings": _told(found.findings),
            "left": _told(found.left),
            "compared": found.compared,
            "knowbias": self._engine.capabilities.amplifies,
            "tokens": found.tokens,
            "note": found.note,
            "budget": budget.state(),
        }


def _told(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [
        {
            "type": finding.type,
            "span": finding.span,
            "start": finding.start,
            "end": finding.end,
            "confidence": round(finding.confidence, 4),
        }
        for finding in findings
    ]
