"""Whose turn it is: rows of one mix at a time, oldest mix first, none overtaken for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adapters.mix import BASE, Mix


@dataclass(slots=True, eq=False)
class _Waiting:
    mix: Mix
    admitted: asyncio.Future[None]
    overtaken: int = 0


class Turns:
    """Lets rows into the server, at most ``slots`` at a time and all of one mix.

    llama.cpp batches only rows whose adapters have the same scales, and each step serves the first
    busy slot's: rows of another mix that are in the server already wait until its rows are done,
    and as long as new ones of the first mix keep coming, for ever. So they wait here. A row joins
    rows of its own mix that are running, unless one of another mix has been overtaken by
    ``slots`` rows; then the running ones finish, and the oldest row's mix is next.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._waiting: list[_Waiting] = []
        self._running = 0
        self.mix = BASE
        """The mix whose turn it is, or was last."""

    @asynccontextmanager
    async def turn(self, mix: Mix) -> AsyncIterator[None]:
        """Wait for a place; it is given back when the block ends."""
        row = _Waiting(mix, asyncio.get_running_loop().create_future())
        self._waiting.append(row)
        self._admit()
        try:
            await row.admitted
            yield
        finally:
            if row in self._waiting:
                self._waiting.remove(row)
            else:
                self._running -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._running < self._slots:
            if self._running == 0:
                self.mix = self._waiting[0].mix
            place = next((i for i, row in enumerate(self._waiting) if row.mix == self.mix), None)
            # The oldest row has been overtaken the most.
            if place is None or (place > 0 and self._waiting[0].overtaken >= self._slots):
                return
            for row in self._waiting[:place]:
                row.overtaken += 1
            row = self._waiting.pop(place)
            self._running += 1
            if not row.admitted.done():
                row.admitted.set_result(None)
