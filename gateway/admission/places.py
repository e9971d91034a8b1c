"""The engine's places: a bounded number of rows runs, a bounded number of requests waits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from adapters.mix import Mix
from gateway.admission.fair_queue import FairQueue, Waiting
from gateway.admission.pace import Pace
from kiki.errors import QueueFullError


class Places:
    """Lets requests at the engine. What an engine does with those it has is its own affair: it may
    group the rows of one mix, or batch them all; so it is given some more than it can run."""

    def __init__(self, rows: int, queue: FairQueue, pace: Pace | None = None) -> None:
        """``rows``: how many may be at the engine at a time. More in one request run alone."""
        self._rows = rows
        self._queue = queue
        self._pace = pace or Pace()
        self._admitted: dict[Waiting, asyncio.Future[None]] = {}
        self._going_on: deque[Waiting] = deque()
        self._running: set[Waiting] = set()
        self._mixes: Counter[Mix] = Counter()
        self.rows_running = 0
        """Rows that have places."""
        self.waited: Callable[[float], object] = lambda seconds: None
        """Told how long each that got places had waited for them."""

    @property
    def waiting(self) -> int:
        """Requests that have no place yet."""
        return len(self._queue) + len(self._going_on)

    @property
    def mixes(self) -> Collection[Mix]:
        """The mixes that run."""
        return self._mixes.keys()

    @asynccontextmanager
    async def hold(
        self, tenant: str, rows: int, mix: Mix, *, began: bool = False
    ) -> AsyncIterator[None]:
        """Wait for places; they are given back when the block ends.

        A request that ``began`` had places before, and isn't done: it goes before those that
        didn't begin, and is never refused. Raises QueueFullError for the others.
        """
        waiting = Waiting(tenant, rows, mix, began)
        admitted = self._admitted[waiting] = asyncio.get_running_loop().create_future()
        came = time.perf_counter()
        try:
            self._enter(waiting)
            await admitted
            self.waited(time.perf_counter() - came)
            yield
        finally:
            self._leave(waiting)
            self._admit()

    def _enter(self, waiting: Waiting) -> None:
        nobody_before = not self._going_on and (waiting.began or not len(self._queue))
        if nobody_before and self._fits(waiting):
            self._start(waiting)
        elif waiting.began:
            self._going_on.append(waiting)
        elif out := self._queue.push(waiting):
            self._refuse(out)

    def _refuse(self, out: Waiting) -> None:
        seconds = self._pace.seconds_for(len(self._queue))
        admitted = self._admitted[out]
        if not admitted.done():
            full = QueueFullError(
                f"{len(self._queue)} requests wait for the engine, which is all that may.",
                retry_after=seconds,
                fix=f"Come again in {seconds:.0f} s.",
            )
            admitted.set_exception(full)

    def _admit(self) -> None:
        while self._going_on and self._fits(self._going_on[0]):
            self._start(self._going_on.popleft())
        if self._going_on:
            return
        while (first := self._queue.next(self._mixes)) and self._fits(first):
            self._queue.take(first)
            self._start(first)

    def _fits(self, waiting: Waiting) -> bool:
        return not self._running or self.rows_running + waiting.rows <= self._rows

    def _start(self, waiting: Waiting) -> None:
        if waiting.began:
            self._queue.charge(waiting.tenant, waiting.rows)
        self._running.add(waiting)
        self._mixes[waiting.mix] += 1
        self.rows_running += waiting.rows
        self._pace.run()
        admitted = self._admitted[waiting]
        if not admitted.done():
            admitted.set_result(None)

    def _leave(self, waiting: Waiting) -> None:
        admitted = self._admitted.pop(waiting)
        if admitted.done() and not admitted.cancelled():
            admitted.exception()  # one that was cancelled meanwhile hasn't looked
        if waiting not in self._running:
            if waiting in self._going_on:
                self._going_on.remove(waiting)
            self._queue.remove(waiting)
            return
        self._running.remove(waiting)
        self.rows_running -= waiting.rows
        self._mixes[waiting.mix] -= 1
        if not self._mixes[waiting.mix]:
            del self._mixes[waiting.mix]
        if not waiting.began:
            self._pace.done()
        if not self._running:
            self._pace.rest()
