"""Stage 4: the model answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from adapters.engines.base import Engine, GenerateRequest, Usage, complete
from adapters.mix import BASE, Mix
from gateway.thinking import ThinkingStripper, strip_thinking
from gateway.turn import Answered, Turn


class InferStage:
    """One pass with the mix (single, blend), or one candidate an adapter in one batch (panel)."""

    name = "infer"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        """Generate whole answers and put them into ``turn.candidates``."""
        mixes = self._mixes(turn)
        requests = [GenerateRequest(turn.prompt, mix, turn.ask.sampling) for mix in mixes]
        with turn.waiting():
            completions = await complete(self._engine, requests)
        for mix, completion in zip(mixes, completions, strict=True):
            text = completion.text
            if turn.ask.options.strip_thinking:
                text = strip_thinking(text)
            self._add(
                turn, Answered(_author(mix), text, completion.finish_reason, completion.usage)
            )
        self._decide(turn, decision)

    async def stream(self, turn: Turn, decision: dict[str, object]) -> AsyncGenerator[str, None]:
        """The same for a single row, giving its text as it comes."""
        stripper = ThinkingStripper() if turn.ask.options.strip_thinking else None
        request = GenerateRequest(turn.prompt, turn.mount.mix, turn.ask.sampling)
        text = ""
        async with aclosing(self._engine.generate([request])) as deltas:
            while True:
                with turn.waiting():
                    delta = await anext(deltas, None)
                if delta is None:
                    break
                piece = stripper.feed(delta.text) if stripper else delta.text
                if delta.finish_reason and stripper:
                    piece += stripper.flush()
                text += piece
                if delta.finish_reason:
                    author = _author(turn.mount.mix)
                    usage = delta.usage or Usage()
                    self._add(turn, Answered(author, text, delta.finish_reason, usage))
                    self._decide(turn, decision)
                if piece:
                    yield piece

    def _mixes(self, turn: Turn) -> list[Mix]:
        mix = turn.mount.mix
        if turn.mount.plan != "panel" or not mix:
            return [mix]
        strongest_first = sorted(mix.weights, key=lambda pair: -abs(pair[1]))
        return [Mix.single(name) for name, _ in strongest_first]

    def _add(self, turn: Turn, answered: Answered) -> None:
        turn.candidates.append(answered)
        turn.usage += answered.usage
        if len(turn.candidates) == 1:
            turn.answer = answered.text
            turn.finish_reason = answered.finish_reason

    def _decide(self, turn: Turn, decision: dict[str, object]) -> None:
        decision |= {
            "candidates": [
                {
                    "adapters": candidate.adapter or "base",
                    "tokens": candidate.usage.completion_tokens,
                    "finish_reason": candidate.finish_reason,
                }
                for candidate in turn.candidates
            ],
            "prompt_tokens": turn.usage.prompt_tokens,
            "cached_tokens": turn.usage.cached_tokens,
        }


def _author(mix: Mix) -> str | None:
    return None if mix == BASE else "+".join(mix.names)
