"""Which adapters are in memory: what a byte budget holds, the least recently used out first."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.terms import Prepared

log = logging.getLogger("kiki.adapters")


@dataclass(frozen=True, slots=True)
class ResidentStats:
    """``nbytes`` is what the adapters in memory take now; the counters start at 0."""

    adapters: int
    nbytes: int
    budget_bytes: int
    loads: int
    evictions: int


class Lease:
    """A row's hold on its adapters: none of them is evicted before ``release``."""

    def __init__(self, resident: Resident, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self._resident: Resident | None = resident

    def release(self) -> None:
        """Let go; a second time does nothing."""
        resident, self._resident = self._resident, None
        if resident is not None:
            resident._unpin(self.keys)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Resident:
    """Keeps the adapters of one ``Slots`` within ``budget_bytes``. For one thread, the model's.

    It reads nothing: what is ``missing`` another thread prepares, and ``put`` takes it in. What
    is held is never evicted: where the budget can't hold it, memory goes over, and the log says
    so. What requests only want goes after what nobody wants, and never once it is dropped, since
    its files may be others by then.
    """

    def __init__(self, slots: Slots, budget_bytes: int) -> None:
        self._slots = slots
        self._budget = budget_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()  # the least recently used first
        self._known: dict[str, int] = {}  # sizes of what is served, in memory or not
        self._pins: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()
        self._dropped: set[str] = set()
        self._bytes = 0
        self._loads = 0
        self._evictions = 0
        self._over = False

    @property
    def keys(self) -> tuple[str, ...]:
        """What is in memory, the least recently used first."""
        return tuple(self._sizes)

    @property
    def stats(self) -> ResidentStats:
        return ResidentStats(
            len(self._sizes), self._bytes, self._budget, self._loads, self._evictions
        )

    def offer(self, key: str, prepared: Prepared) -> None:
        """Serve an adapter from now on; it stays in memory if it fits beside the others there."""
        self._dropped.discard(key)
        self._known[key] = prepared.nbytes
        if key not in self._sizes and self._bytes + prepared.nbytes <= self._budget:
            self._add(key, prepared)

    def put(self, key: str, prepared: Prepared) -> None:
        """Take in an adapter, evicting what must go. One that is in memory stays as it is."""
        if key not in self._sizes:
            self._make_room(prepared.nbytes)
            self._add(key, prepared)

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Those of ``keys`` that aren't in memory."""
        return tuple(key for key in keys if key not in self._sizes)

    def fits(self, keys: Iterable[str]) -> bool:
        """Whether the budget holds ``keys`` beside all that is held, in memory or still to come."""
        return sum(self._known.get(key, 0) for key in {*keys, *self._pins}) <= self._budget

    def hold(self, keys: Iterable[str]) -> Lease:
        """Keep ``keys`` until the lease is released, those that are yet to come too."""
        held = tuple(dict.fromkeys(keys))
        self._pins.update(held)
        for key in held:
            if key in self._sizes:
                self._sizes.move_to_end(key)
        return Lease(self, held)

    def want(self, keys: Iterable[str]) -> None:
        """Note a request's adapters, from when it is accepted until ``unwant``."""
        self._wanted.update(set(keys))

    def unwant(self, keys: Iterable[str]) -> None:
        """Take back a ``want`` of the same keys."""
        gone = set(keys)
        _subtract(self._wanted, gone)
        self._forget_dropped(gone)

    def is_wanted(self, key: str) -> bool:
        return key in self._wanted or key in self._pins

    def drop(self, key: str) -> None:
        """Forget an adapter that is no longer served, as soon as no row wants or holds it."""
        self._dropped.add(key)
        self._forget_dropped({key})

    def is_dropped(self, key: str) -> bool:
        """Whether the adapter is only here for the rows that came when it was still served."""
        return key in self._dropped

    def _add(self, key: str, prepared: Prepared) -> None:
        self._slots.bind(key, prepared)
        self._sizes[key] = self._known[key] = prepared.nbytes
        self._bytes += prepared.nbytes
        self._loads += 1

    def _remove(self, key: str) -> None:
        self._slots.unbind(key)
        self._bytes -= self._sizes.pop(key)

    def _make_room(self, nbytes: int) -> None:
        """Evict until ``nbytes`` more fit, or all that is left must stay."""
        for key in sorted(self._sizes, key=lambda key: key in self._wanted):
            if self._bytes + nbytes <= self._budget:
                return
            if key not in self._pins and key not in self._dropped:
                self._remove(key)
                self._evictions += 1
        if self._bytes + nbytes > self._budget and not self._over:
            self._over = True
            log.warning(
                "the adapters of running rows take %d bytes, over the budget of %d",
                self._bytes + nbytes,
                self._budget,
            )

    def _unpin(self, keys: tuple[str, ...]) -> None:
        _subtract(self._pins, keys)
        self._forget_dropped(keys)
        self._make_room(0)

    def _forget_dropped(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._dropped and not self.is_wanted(key):
                self._dropped.discard(key)
                self._known.pop(key, None)
                if key in self._sizes:
                    self._remove(key)


def _subtract(counter: Counter[str], keys: Iterable[str]) -> None:
    counter.subtract(keys)
    for key in keys:
        if counter[key] <= 0:
            del counter[key]
