"""Stage 4: the model answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from adapters.engines.base import Delta, Engine, GenerateRequest, Usage, collect
from adapters.mix import BASE, Mix
from gateway.thinking import ThinkingStripper, strip_thinking
from gateway.turn import Answered, Turn
from kiki.errors import PromptTooLongError


class InferStage:
    """One pass with the mix (single, blend), or one candidate an adapter in one batch (panel)."""

    name = "infer"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        """Generate whole answers and put them into ``turn.candidates``."""
        self._drop_removed(turn, decision)
        mixes = self._mixes(turn)
        with turn.waiting():
            async with aclosing(self._deltas(turn, mixes, decision)) as deltas:
                completions = await collect(deltas, len(mixes))
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
        text = ""
        self._drop_removed(turn, decision)
        async with aclosing(self._deltas(turn, [turn.mount.mix], decision)) as deltas:
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

    async def _deltas(
        self, turn: Turn, mixes: Sequence[Mix], decision: dict[str, object]
    ) -> AsyncGenerator[Delta, None]:
        """The engine's deltas; where only the recalled notes make the prompt too long, without."""
        try:
            async with aclosing(self._engine.generate(_requests(turn, mixes))) as deltas:
                async for delta in deltas:
                    yield delta
        except PromptTooLongError:
            if turn.prompt == turn.ask.messages:
                raise
        else:
            return
        turn.prompt = turn.ask.messages
        decision["notes"] = "left out: with them the prompt is too long"
        async with aclosing(self._engine.generate(_requests(turn, mixes))) as deltas:
            async for delta in deltas:
                yield delta

    def _drop_removed(self, turn: Turn, decision: dict[str, object]) -> None:
        """An adapter may go between mount and now; what the caller named, the engine refuses."""
        removed = set(turn.mount.mix.names).difference(self._engine.adapters)
        if removed and turn.ask.options.adapters is None:
            rest = [pair for pair in turn.mount.mix.weights if pair[0] not in removed]
            turn.mount = replace(turn.mount, mix=Mix.of(rest))
            decision["removed"] = sorted(removed)

    def _mixes(self, turn: Turn) -> list[Mix]:
        mix = turn.mount.mix
        if turn.mount.plan != "panel" or len(mix.names) < 2:
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


def _requests(turn: Turn, mixes: Sequence[Mix]) -> list[GenerateRequest]:
    return [GenerateRequest(turn.prompt, mix, turn.ask.sampling) for mix in mixes]


def _author(mix: Mix) -> str | None:
    return None if mix == BASE else "+".join(mix.names)
