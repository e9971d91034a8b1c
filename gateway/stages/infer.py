"""Stage 4: the model answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from adapters.engines.base import Delta, Engine, GenerateRequest, Sampling, collect
from adapters.engines.written_tools import generate
from adapters.mix import BASE, Mix
from gateway.thinking import strip_thinking
from gateway.turn import SEEDS, Answered, Ask, Piece, Turn
from gateway.writing import Writing
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

    async def stream(self, turn: Turn, decision: dict[str, object]) -> AsyncGenerator[Piece, None]:
        """The same for one mix, giving what is written as it comes; a row a choice."""
        ask = turn.ask
        rows = [Writing(row, strip=ask.options.strip_thinking) for row in range(ask.choices)]
        ended: dict[int, Answered] = {}
        self._drop_removed(turn, decision)
        mix = turn.mount.mix
        async with aclosing(self._deltas(turn, [mix] * ask.choices, decision)) as deltas:
            while True:
                with turn.waiting():
                    delta = await anext(deltas, None)
                if delta is None:
                    break
                row = rows[delta.row]
                piece = row.take(delta)
                turn.answer = rows[0].text
                if delta.finish_reason:
                    ended[delta.row] = row.answered(delta, _author(mix))
                    if len(ended) == ask.choices:
                        self._end(turn, [ended[place] for place in range(ask.choices)], decision)
                if piece:
                    yield piece

    def _end(self, turn: Turn, choices: list[Answered], decision: dict[str, object]) -> None:
        first, *others = choices
        self._add(turn, first)
        turn.others = others
        for other in others:
            turn.spend("draft", other.usage)
        self._decide(turn, decision)

    async def _deltas(
        self, turn: Turn, mixes: Sequence[Mix], decision: dict[str, object]
    ) -> AsyncGenerator[Delta, None]:
        """The engine's deltas; where only the recalled notes make the prompt too long, without."""
        try:
            async with aclosing(generate(self._engine, _requests(turn, mixes))) as deltas:
                async for delta in deltas:
                    yield delta
        except PromptTooLongError:
            if turn.prompt == turn.ask.messages:
                raise
        else:
            return
        turn.prompt = turn.ask.messages
        decision["notes"] = "left out: with them the prompt is too long"
        async with aclosing(generate(self._engine, _requests(turn, mixes))) as deltas:
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
        turn.spend("draft", answered.usage)
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
    ask = turn.ask
    if ask.prompt is not None:
        return [
            GenerateRequest((), mix, _seeded(ask, row), prompt=ask.prompt)
            for row, mix in enumerate(mixes)
        ]
    return [
        GenerateRequest(
            turn.prompt,
            mix,
            _seeded(ask, row),
            ask.tools,
            ask.variables,
            amplify=turn.look.antibias,
        )
        for row, mix in enumerate(mixes)
    ]


def _seeded(ask: Ask, row: int) -> Sampling:
    """Of several choices each has a seed of its own, or all would be the same."""
    seed = ask.sampling.seed
    if seed is None or ask.choices == 1 or row == 0:
        return ask.sampling
    return replace(ask.sampling, seed=(seed + row) % SEEDS)


def _author(mix: Mix) -> str | None:
    return None if mix == BASE else "+".join(mix.names)
