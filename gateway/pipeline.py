"""One turn through the seven stages, in this order and no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import anyio

from gateway.stages.infer import InferStage
from gateway.turn import Ask, Piece, Turn


class Stage(Protocol):
    """Reads the turn, adds its result to it, and writes its decision down."""

    name: str

    async def run(self, turn: Turn, decision: dict[str, object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The seven stages. ``prepare`` runs what comes before the first token, ``answer`` the rest."""

    route: Stage
    mount: Stage
    recall: Stage
    infer: InferStage
    negotiate: Stage
    antibias: Stage
    write: Stage

    async def prepare(self, ask: Ask) -> Turn:
        """Stages 1 to 3. Raises RequestError before anything is generated."""
        turn = Turn(ask)
        await _run(self.route, turn)
        await _run(self.mount, turn)
        await _run(self.recall, turn)
        return turn

    async def answer(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        """Stages 4 to 7: gives the text as it comes, or at once where stages 5 or 6 must see it.

        The episode is journalled before the generator ends, so that the end acknowledges it; where
        the caller leaves before, with what was written until then, as aborted.
        """
        try:
            if turn.held:
                await _run(self.infer, turn)
            else:
                with turn.stage(self.infer.name) as decision:
                    async with aclosing(self.infer.stream(turn, decision)) as pieces:
                        async for piece in pieces:
                            turn.first_text = turn.first_text or time.perf_counter()
                            with turn.waiting():
                                yield piece
            await _run(self.negotiate, turn)
            await _run(self.antibias, turn)
            if turn.held:
                turn.first_text = time.perf_counter()
                yield Piece(turn.answer)
        except (GeneratorExit, asyncio.CancelledError):
            turn.aborted = True
            with anyio.CancelScope(shield=True):
                await _run(self.write, turn)
            raise
        await _run(self.write, turn)


async def _run(stage: Stage, turn: Turn) -> None:
    with turn.stage(stage.name) as decision:
        await stage.run(turn, decision)
