"""Stage 5: the panel's candidates are voted on; nothing to negotiate costs nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from adapters.engines.base import Engine
from gateway.generate import generator
from gateway.judging import Judges, asked, within
from gateway.turn import Turn
from negotiator.agreement import Embed
from negotiator.candidate import Candidate
from negotiator.catfish import UNSURE
from negotiator.negotiate import Panel, negotiate
from negotiator.prompt import Reply
from negotiator.verdict import Verdict


class NegotiateStage:
    """Hands the candidates to CAMP and takes its verdict as the answer."""

    name = "negotiate"

    def __init__(
        self, engine: Engine, embed: Embed, judges: Judges, catfish_below: float | None
    ) -> None:
        self._engine = engine
        self._embed = embed
        self._judges = judges
        self._unsure = UNSURE if catfish_below is None else catfish_below

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        if len(turn.candidates) < 2:
            decision["skipped"] = "one candidate"
            return
        if not turn.look.negotiate:
            decision["skipped"] = "switched off: the strongest adapter's answer is taken"
            return
        verdict = await negotiate(
            turn.ask.question,
            [
                Candidate(
                    answered.text, (answered.adapter or "base",), answered.usage.completion_tokens
                )
                for answered in turn.candidates
            ],
            self._panel(turn),
            budget=turn.look.budget,
            seed=zlib.crc32(turn.ask.question.encode()),
        )
        turn.verdict = verdict
        turn.answer = verdict.text
        turn.finish_reason = next(
            (c.finish_reason for c in turn.candidates if c.text == verdict.text), "stop"
        )
        decision |= explained(verdict) | {"budget": turn.look.budget.state()}

    def _panel(self, turn: Turn) -> Panel:
        generate = generator(self._engine, turn, Reply, "votes")
        judges = self._judges

        def embed(texts: Sequence[str]) -> NDArray[Any]:
            with turn.waiting():
                return self._embed(texts)

        own = generator(self._engine, turn, Reply, "judge")
        judge = asked(judges.judge, turn) if judges.judge else own
        deep = asked(judges.deep_judge, turn) if judges.deep_judge else None
        return Panel(
            generate=generate,
            embed=embed,
            judge=within(judge, judges.timeout_s),
            deep_judge=within(deep, judges.timeout_s) if deep else None,
            deep=turn.look.deep,
            unsure=self._unsure,
        )


def explained(verdict: Verdict) -> dict[str, object]:
    """A verdict as ``explain`` shows it (docs/negotiation.md)."""
    gate = verdict.gate
    return {
        "how": verdict.how,
        "winner": list(verdict.authors),
        "agreement": round(verdict.agreement, 4),
        "candidates": [
            {"authors": list(one.authors), "text": one.text, "tokens": one.tokens}
            for one in verdict.candidates
        ],
        "votes": [
            {
                "specialist": vote.specialist,
                "candidate": vote.candidate,
                "vote": vote.choice,
                "argument": vote.argument,
            }
            for vote in verdict.votes
        ],
        "judge": verdict.judge,
        "audits": [asdict(audit) for audit in verdict.audits],
        "catfish": None
        if gate is None
        else {
            "fired": gate.fired,
            "why": gate.why,
            "strength": gate.strength if gate.fired else None,
            "confidence": round(gate.confidence, 4),
            "critique": verdict.critique,
            "outcome": verdict.dissent,
        },
        "tokens": verdict.tokens,
        "note": verdict.note,
    }
