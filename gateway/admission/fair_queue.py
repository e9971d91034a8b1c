"""Who is next: the tenant that had the least, and of it, if it can be, a mix that runs.

The order between tenants is start-time fair queueing (Goyal, Vin and Cheng, 1996) with equal
weights: while two tenants wait, what they get differs by no more than one request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field

from adapters.mix import Mix


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that asks for ``rows`` places; ``overtaken`` by so many of its own tenant.

    One that ``began`` had places before.
    """

    tenant: str
    rows: int
    mix: Mix
    began: bool = False
    overtaken: int = field(default=0, init=False)


class FairQueue:
    """At most ``limit`` requests. When it is full, one of the longest line makes room for a tenant
    that waits for less. A request is overtaken ``bypass`` times at most for the sake of a mix."""

    def __init__(self, limit: int, bypass: int) -> None:
        self._limit = limit
        self._bypass = bypass
        self._lines: dict[str, deque[Waiting]] = {}
        self._had: dict[str, float] = {}
        self._clock = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(self, waiting: Waiting) -> Waiting | None:
        """Put it at the end of its tenant's line. Gives the one that has no place then: the newest
        of the longest line, or ``waiting`` itself; None where there is room for all."""
        out = None
        line = self._lines.get(waiting.tenant)
        if len(self) >= self._limit:
            longest = max(self._lines.values(), key=len, default=None)
            if longest is None or len(longest) <= len(line or ()) + 1:
                return waiting
            out = longest[-1]
            self.remove(out)
        if line is None:
            line = self._lines[waiting.tenant] = deque()
            self._had[waiting.tenant] = max(self._had.get(waiting.tenant, 0.0), self._clock)
        line.append(waiting)
        return out

    def next(self, running: Container[Mix]) -> Waiting | None:
        """The one to be served next; it stays until it is taken."""
        if not self._lines:
            return None
        line = self._lines[min(self._lines, key=self._had.__getitem__)]
        if line[0].overtaken < self._bypass:
            return next((one for one in line if one.mix in running), line[0])
        return line[0]

    def take(self, waiting: Waiting) -> None:
        """It is being served: its tenant had so many rows more, and those before it lost a turn."""
        for one in self._lines[waiting.tenant]:
            if one is waiting:
                break
            one.overtaken += 1
        self._clock = self._had[waiting.tenant]
        self.charge(waiting.tenant, waiting.rows)
        self.remove(waiting)

    def charge(self, tenant: str, rows: int) -> None:
        """Count rows that a tenant got without having waited for them."""
        if tenant in self._had:
            self._had[tenant] += rows

    def remove(self, waiting: Waiting) -> None:
        """It waits no longer, if it did. Where nobody does, what tenants had is forgotten."""
        line = self._lines.get(waiting.tenant)
        if line is None or waiting not in line:
            return
        line.remove(waiting)
        if not line:
            del self._lines[waiting.tenant]
        if not self._lines:
            self._had.clear()
            self._clock = 0.0
