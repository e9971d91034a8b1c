"""Rows that wait: their adapters are read ahead, and the first that has its own goes first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from adapters.adapter import Adapter
from adapters.engines.mlx.job import Job
from adapters.engines.mlx.resident import Lease, Resident
from adapters.engines.mlx.terms import Prepared

# How many rows are looked at, so that a turn doesn't get longer with the queue.
LOOKAHEAD = 32


@dataclass(slots=True, eq=False)
class Waiter:
    """A waiting row. ``lease`` is its hold, once its adapters are being read or are there.

    ``load_s`` is how long reading took, None where nothing had to be read.
    """

    job: Job
    lease: Lease | None = None
    began: float = 0.0
    load_s: float | None = None


class Waiting:
    """The rows that wait, in the order they came. For the model's thread.

    ``read`` begins to read an adapter elsewhere; ``loaded`` or ``failed`` is called for it later.
    A row whose adapters are still being read lets later rows pass, and is first again when they
    are there: what it holds is not evicted meanwhile.
    """

    def __init__(self, resident: Resident, read: Callable[[str, Adapter], None]) -> None:
        self._resident = resident
        self._read = read
        self._waiters: list[Waiter] = []
        self._reading: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, job: Job) -> None:
        """Queue a row."""
        self._waiters.append(Waiter(job))

    def remove(self, job: Job) -> None:
        """Take a row out, if it waits here."""
        for waiter in [each for each in self._waiters if each.job is job]:
            self._waiters.remove(waiter)
            if waiter.lease:
                waiter.lease.release()

    def clear(self) -> tuple[Job, ...]:
        """Take all rows out."""
        jobs = tuple(waiter.job for waiter in self._waiters)
        for job in jobs:
            self.remove(job)
        return jobs

    def look_ahead(self, free: int) -> None:
        """Begin to read what the next rows need.

        Those for which one of ``free`` slots is free get it whatever the budget; those behind
        them as far as the budget goes, in order: none takes the room that an earlier one needs.
        """
        room = True
        for place, waiter in enumerate(islice(self._waiters, LOOKAHEAD)):
            if waiter.lease:
                continue
            names = waiter.job.mix.names
            missing = self._resident.missing(names)
            if missing and place >= free:
                room = room and self._resident.fits(names)
                if not room:
                    continue
            waiter.lease = self._resident.hold(names)
            waiter.began = time.perf_counter()
            for key in missing:
                if key not in self._reading:
                    self._reading.add(key)
                    self._read(key, waiter.job.adapters[key])

    def ready(self) -> Waiter | None:
        """The first row whose adapters are all in memory, and held."""
        return next(
            (
                waiter
                for waiter in islice(self._waiters, LOOKAHEAD)
                if waiter.lease and not self._resident.missing(waiter.lease.keys)
            ),
            None,
        )

    def take(self, waiter: Waiter) -> Lease:
        """Take a ready row out, to run it; its hold is the caller's."""
        assert waiter.lease is not None
        self._waiters.remove(waiter)
        return waiter.lease

    def loaded(self, key: str, prepared: Prepared) -> None:
        """An adapter was read; it is let go where nobody wants it any more."""
        self._reading.discard(key)
        if not self._resident.is_wanted(key):
            return
        self._resident.put(key, prepared)
        for waiter in self._holders(key):
            waiter.load_s = time.perf_counter() - waiter.began

    def failed(self, key: str) -> tuple[Job, ...]:
        """An adapter can't be read: the rows that waited for it, taken out."""
        self._reading.discard(key)
        jobs = tuple(waiter.job for waiter in self._holders(key))
        for job in jobs:
            self.remove(job)
        return jobs

    def _holders(self, key: str) -> list[Waiter]:
        return [waiter for waiter in self._waiters if waiter.lease and key in waiter.lease.keys]
