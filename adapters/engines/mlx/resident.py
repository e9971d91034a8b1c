"""Which adapters are in memory: what a byte budget holds, the least recently used out first."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.terms import Prepared
from adapters.lora import Lora

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

    ``load`` reads an adapter by its key and may raise AdapterError. What running rows hold is
    never evicted: where the budget can't hold it, memory goes over, and the log says so.
    """

    def __init__(self, slots: Slots, budget_bytes: int, load: Callable[[str], Lora]) -> None:
        self._slots = slots
        self._budget = budget_bytes
        self._load = load
        self._sizes: OrderedDict[str, int] = OrderedDict()  # the least recently used first
        self._pins: Counter[str] = Counter()
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

    def fill(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Load ``keys`` in order while they fit, evicting nothing; returns those left out.

        Raises AdapterError as ``load`` and ``Slots.prepare`` do, with the earlier ones loaded.
        """
        wanted = [key for key in keys if key not in self._sizes]
        for position, key in enumerate(wanted):
            prepared = self._slots.prepare(self._load(key))
            if self._bytes + prepared.nbytes > self._budget:
                return tuple(wanted[position:])
            self._add(key, prepared)
        return ()

    def put(self, key: str, prepared: Prepared) -> None:
        """Take in an adapter that another thread loaded and prepared, evicting what must go.

        A key that is in memory already stays as it is.
        """
        if key not in self._sizes:
            self._make_room(prepared.nbytes)
            self._add(key, prepared)

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Those of ``keys`` that ``acquire`` would have to load."""
        return tuple(key for key in keys if key not in self._sizes)

    def acquire(self, keys: Iterable[str]) -> Lease:
        """Load what is missing and hold all of ``keys`` until the lease is released.

        Raises AdapterError as ``load`` and ``Slots.prepare`` do, and then holds nothing.
        """
        held = tuple(dict.fromkeys(keys))
        self._pins.update(held)
        self._dropped.difference_update(held)
        try:
            for key in self.missing(held):
                self.put(key, self._slots.prepare(self._load(key)))
        except BaseException:
            self._unpin(held)
            raise
        for key in held:
            self._sizes.move_to_end(key)
        return Lease(self, held)

    def drop(self, key: str) -> None:
        """Forget an adapter that is no longer served, as soon as no row holds it."""
        if self._pins[key]:
            self._dropped.add(key)
        elif key in self._sizes:
            self._remove(key)

    def _add(self, key: str, prepared: Prepared) -> None:
        self._slots.bind(key, prepared)
        self._sizes[key] = prepared.nbytes
        self._bytes += prepared.nbytes
        self._loads += 1

    def _remove(self, key: str) -> None:
        self._slots.unbind(key)
        self._bytes -= self._sizes.pop(key)

    def _make_room(self, nbytes: int) -> None:
        """Evict until ``nbytes`` more fit, or all that is left is held by rows."""
        for key in tuple(self._sizes):
            if self._bytes + nbytes <= self._budget:
                return
            if not self._pins[key]:
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
        self._pins.subtract(keys)
        for key in keys:
            if self._pins[key] == 0:
                del self._pins[key]
                if key in self._dropped:
                    self._dropped.discard(key)
                    self.drop(key)
        self._make_room(0)
