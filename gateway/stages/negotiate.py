"""Stage 5: the panel's candidates are voted on; nothing to negotiate costs nothing."""

from __future__ import annotations

import zlib

from adapters.engines.base import Engine
from gateway.generate import generator
from gateway.turn import Turn
from negotiator.agreement import Embed
from negotiator.candidate import Candidate
from negotiator.negotiate import negotiate
from negotiator.prompt import Reply


class NegotiateStage:
    """Hands the candidates to CAMP and takes its verdict as the answer."""

    name = "negotiate"

    def __init__(self, engine: Engine, embed: Embed, token_budget: int) -> None:
        self._engine = engine
        self._embed = embed
        self._token_budget = token_budget

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
            generate=generator(self._engine, turn, Reply),
            embed=self._embed,
            token_budget=self._token_budget,
            seed=zlib.crc32(turn.ask.question.encode()),
        )
        turn.answer = verdict.text
        turn.finish_reason = next(
            (c.finish_reason for c in turn.candidates if c.text == verdict.text),
            turn.finish_reason,
        )
        decision |= {
            "how": verdict.how,
            "winner": list(verdict.authors),
            "agreement": round(verdict.agreement, 4),
            "tokens": verdict.tokens,
            "note": verdict.note,
        }
