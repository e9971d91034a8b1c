"""Brings the journal's rows into a store, in order, from where it stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from kiki.errors import StoreReplacedError, StoreUnavailableError
from memory.episode_rows import JournalRow
from memory.journal import Journal

logger = logging.getLogger("kiki.memory")

BATCH = 64
# After a new episode it waits so long for more: a batch costs several syncs of the disk, which
# would slow the journal's. Recall reads what waits from the journal.
GATHER_S = 0.1
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


class ProjectedStore(Protocol):
    """What a projector needs of a store. ``generation`` changes when it is made anew."""

    @property
    def generation(self) -> str: ...

    def verify(self) -> None: ...

    def close(self) -> None: ...


Store = TypeVar("Store", bound=ProjectedStore)


class Projector(Generic[Store]):
    """A thread that keeps one store up with the journal.

    ``open_store`` is tried until it gives a store; ``project`` brings rows into it, durable on
    return, and must be idempotent: after a crash the last batch comes again. ``follow`` brings in
    what belongs to the episodes, once all are there; True when there may be more. When one raises,
    the projector waits, longer each time, and tries again.
    """

    def __init__(
        self,
        name: str,
        journal: Journal,
        open_store: Callable[[], Store],
        project: Callable[[Store, Sequence[JournalRow]], None],
        follow: Callable[[Store], bool] = lambda store: False,
    ) -> None:
        self.name = name
        self.last_error: str | None = None
        self._journal = journal
        self._open_store = open_store
        self._project = project
        self._follow = follow
        self._store: Store | None = None
        self._cursor = 0
        self._failures = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._woken = False
        self._hurried = False
        self._asked = self._settled = 0
        self._thread = threading.Thread(target=self._run, name=f"kiki-{name}", daemon=True)

    @property
    def cursor(self) -> int:
        """The journal's number up to which the store holds every episode."""
        return self._cursor

    def start(self) -> None:
        """Opens the store and starts the thread; a store that doesn't open is tried later."""
        self._attempt(self._open)
        self._thread.start()

    def stop(self) -> None:
        """Stops after the batch in hand and closes the store."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        if self._store is not None:
            self._store.close()
            self._store = None

    def wake(self) -> None:
        """There is something new in the journal."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def store(self) -> Store:
        """The open store. Raises `StoreUnavailableError` while it can't be opened."""
        if self._store is None:
            raise StoreUnavailableError(
                f"The {self.name} store is not open: {self.last_error or 'memory is closed'}"
            )
        return self._store

    def lag(self) -> int:
        """How many episodes the store is behind."""
        return self._journal.count(after=self._cursor)

    def reached(self, seq: int) -> bool:
        """Whether the store holds the journal up to ``seq``; one that doesn't yet is hurried."""
        with self._changed:
            if self._store is not None and self._cursor >= seq:
                return True
            self._hurried = self._woken = True
            self._changed.notify_all()
            return False

    def drain(self, timeout: float) -> bool:
        """Waits until the store holds all that is in the journal now; False after ``timeout``
        seconds."""
        goal = self._journal.last_seq()
        with self._changed:
            self._hurried = self._woken = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: self._store is not None and self._cursor >= goal, timeout
            )

    def settle(self, timeout: float) -> bool:
        """Waits until the store holds all that is in the journal now, and has followed it in what
        belongs to the episodes and in what was deleted; False after ``timeout`` seconds, and at
        once while the store fails."""
        with self._changed:
            self._asked += 1
            goal = self._asked
            self._hurried = self._woken = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled >= goal or self._failures > 0, timeout)
            return self._settled >= goal

    def _run(self) -> None:
        while not self._stopping:
            asked = self._asked
            while not self._stopping and self._attempt(self._step):
                pass
            with self._changed:
                if not self._failures and not self._stopping:
                    self._settled = asked
                self._changed.notify_all()
                # A new episode doesn't cut short the wait for a store that is down.
                self._changed.wait_for(
                    lambda: self._stopping or (self._woken and not self._failures),
                    pause_after(self._failures),
                )
                self._changed.wait_for(lambda: self._stopping or self._hurried, GATHER_S)
                self._woken = self._hurried = False

    def _attempt(self, work: Callable[[], bool]) -> bool:
        """True when there may be more to do at once."""
        try:
            more = work()
        except Exception as error:  # the thread's boundary: it must outlive any store's fault
            self._failures += 1
            self.last_error = str(error)
            logger.warning("%s: attempt %d failed: %s", self.name, self._failures, error)
            return False
        if self._failures:
            logger.info("%s: works again after %d failures", self.name, self._failures)
        self._failures = 0
        self.last_error = None
        return more

    def _open(self) -> bool:
        store = self._open_store()
        self._cursor = self._journal.cursor(self.name, store.generation)
        self._store = store
        return True

    def _step(self) -> bool:
        if self._store is None:
            return self._open()
        try:
            self._store.verify()
        except StoreReplacedError:
            self._store.close()
            self._store = None
            raise
        rows = self._journal.rows_after(self._cursor, BATCH)
        if not rows:
            return self._follow(self._store)
        self._project(self._store, rows)
        self._journal.advance(self.name, self._store.generation, rows[-1].seq)
        with self._changed:
            self._cursor = rows[-1].seq
            self._changed.notify_all()
        return True


def pause_after(failures: int) -> float:
    """Seconds until the next attempt after so many failures in a row; none is a quiet store's."""
    if not failures:
        return LONGEST_PAUSE_S
    # The exponent is bounded: after hours of failures two to it would be no float any more.
    return float(min(FIRST_PAUSE_S * 2 ** min(failures - 1, 20), LONGEST_PAUSE_S))
