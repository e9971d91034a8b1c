"""The mixes that servers can be told to load: composed once, kept while used, the oldest go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.engines.swaps import Swaps
from adapters.engines.vllm.slate import Slate
from kiki.errors import EngineError, EngineUnavailableError, KikiError

log = logging.getLogger("kiki.adapters")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to serve under ``key``: an adapter's own ``folder``, or what ``make`` writes.

    ``make`` writes one adapter to the path it is given, in a thread, of at most about ``bytes``:
    on one of the slates it is given, else on a new one, for which it removes those. ``check``
    raises AdapterError where ``folder`` isn't what it was found to be. ``label`` is for people.
    ``fingerprints`` are those of the adapters; when one of them is no longer served, the mix goes.
    """

    key: str
    label: str
    fingerprints: frozenset[str]
    bytes: int = 0
    folder: Path | None = None
    make: Callable[[Path, Sequence[Slate]], Slate] | None = None
    check: Callable[[], None] | None = None


@dataclass(eq=False, slots=True)
class Entry:
    """A mix on disk. ``name`` is what the servers call it, used for nothing else ever after."""

    recipe: Recipe
    name: str
    path: Path
    bytes: int
    users: int = 0
    making: asyncio.Task[None] | None = field(default=None, repr=False)
    slate: Slate | None = None
    offered: list[Slate] = field(default_factory=list)


class MixStore:
    """Composed adapters in ``folder``, at most ``budget`` bytes and ``mixes`` of them.

    The mix that was not used for longest is unloaded (``unload`` is awaited with its name) and
    deleted, never one with requests in flight; the mix that it makes room for may be written on
    its slate. Where there is room, a spare slate is kept for the next new mix. Adapters served
    from their own folder take no room and stay until they are retired.
    """

    def __init__(
        self,
        folder: Path,
        budget: int,
        mixes: int,
        unload: Callable[[str], Awaitable[None]],
        *,
        patience: float = 60.0,
        swaps: Swaps | None = None,
    ) -> None:
        self._folder = folder
        self._budget = budget
        self._mixes = mixes
        self._unload = unload
        self._patience = patience
        self._swaps = swaps or Swaps()
        self._entries: dict[str, Entry] = {}  # the least recently used first
        self._current: frozenset[str] | None = None
        self._room = asyncio.Lock()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serial = 0
        self._closed = False
        self._spare: Slate | None = None
        self._spare_bytes = 0
        self._spare_making = 0
        self.waiting = 0
        self.composed = 0
        self.compose_seconds = 0.0

    @property
    def used_bytes(self) -> int:
        """Of the mixes, without the spare."""
        return sum(entry.bytes for entry in self._entries.values())

    @property
    def composed_names(self) -> tuple[str, ...]:
        return tuple(e.name for e in self._entries.values() if e.recipe.folder is None)

    @contextlib.asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncIterator[Entry]:
        """The mix, made where it isn't there yet; it stays until the context ends.

        However many ask at once, it is made once; one that leaves doesn't stop the making.
        Raises EngineError when it can't be made, EngineUnavailableError when there is no room.
        """
        entry = self._entries.pop(recipe.key, None) or self._new(recipe)
        entry.recipe = recipe  # the same mix, of files that were perhaps looked at again since
        self._entries[recipe.key] = entry
        entry.users += 1
        try:
            if entry.making:
                await asyncio.shield(entry.making)
            yield entry
        finally:
            entry.users -= 1
            self._released.set()
            if entry.users == 0 and self._is_retired(entry):
                self._background(self._evict(entry))
            self._refill()

    def keep_spare(self, size: int) -> None:
        """Have a spare of ``size`` bytes made ahead, where there is room for it; 0 for none."""
        self._spare_bytes = size
        spare, self._spare = self._spare, None
        if spare and spare.bytes == size:
            self._spare = spare
        elif spare:
            self._background(asyncio.to_thread(spare.remove))
        self._refill()

    async def settled(self) -> None:
        """Wait until nothing is made or removed in the background."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def retire(self, current: frozenset[str]) -> None:
        """Drop what is made of adapters not in ``current``, as soon as nobody uses it."""
        self._current = current
        for entry in list(self._entries.values()):
            if entry.users == 0 and self._is_retired(entry):
                self._background(self._evict(entry))

    async def close(self) -> None:
        """Wait for what is being written; the folder is its owner's to remove."""
        self._closed = True
        self._released.set()
        making = {entry.making for entry in self._entries.values() if entry.making}
        if tasks := making | self._tasks:
            await asyncio.wait(tasks)
        slates = [entry.slate for entry in self._entries.values()]
        for slate in [self._spare, *slates]:
            if slate:
                slate.release()

    def _new(self, recipe: Recipe) -> Entry:
        if recipe.folder:
            return Entry(recipe, f"{recipe.label}@{recipe.key[:12]}", recipe.folder, 0)
        self._serial += 1
        # The folder's name is this process's own: no two mixes ever have one name.
        name = f"{recipe.label}@{recipe.key[:12]}-{self._folder.name}.{self._serial}"
        path = self._folder / f"{recipe.key[:12]}.{self._serial}"
        entry = Entry(recipe, name, path, 0)
        entry.making = asyncio.create_task(self._make(entry), name=f"compose {recipe.label}")
        entry.making.add_done_callback(lambda task: task.cancelled() or task.exception())
        return entry

    async def _make(self, entry: Entry) -> None:
        make = entry.recipe.make
        assert make
        try:
            await self._reserve(entry)
            started = time.monotonic()
            entry.slate = await asyncio.to_thread(make, entry.path, entry.offered)
            entry.bytes = entry.slate.bytes
            self.composed += 1
            seconds = time.monotonic() - started
            self.compose_seconds += seconds
            self._swaps.count("compose", seconds)
        except Exception as error:
            self._forget(entry)
            await _remove(entry.path)
            if isinstance(error, EngineUnavailableError) or not isinstance(
                error, KikiError | OSError | MemoryError
            ):
                raise
            message = f"The mix {entry.recipe.label} could not be composed: {error}"
            raise EngineError(message) from error
        finally:
            self._put_back(entry)
            entry.making = None
            self._released.set()  # it may be idle already, where all who asked have left

    async def _reserve(self, entry: Entry) -> None:
        """Wait for room and take it."""
        try:
            async with asyncio.timeout(self._patience), self._room:
                while not self._has_room(entry):
                    if self._closed:
                        raise EngineUnavailableError("The engine is stopping.")
                    oldest = next((e for e in self._entries.values() if _is_idle(e)), None)
                    if oldest and not self._spare_making:
                        await self._replace(oldest, entry)
                    else:
                        await self._next_release()
                entry.bytes = entry.recipe.bytes
                if self._spare:
                    entry.offered.append(self._spare)
                    self._spare = None
        except TimeoutError as error:
            raise EngineUnavailableError(
                f"There was no room for the mix {entry.recipe.label} within "
                f"{self._patience:.0f} s: requests are using all of the work folder.",
                fix="Try again shortly; more free space there makes room for more mixes.",
            ) from error

    async def _next_release(self) -> None:
        self.waiting += 1
        self._released.clear()
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1

    def _has_room(self, entry: Entry) -> bool:
        composed = sum(1 for other in self._entries.values() if other.bytes)
        bytes_then = self.used_bytes + self._spare_making + entry.recipe.bytes
        if not composed:  # ``fitting`` has seen to it that one fits
            return not self._spare_making
        return composed < self._mixes and bytes_then <= self._budget

    def _is_retired(self, entry: Entry) -> bool:
        return self._current is not None and not entry.recipe.fingerprints <= self._current

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.recipe.key) is entry:
            del self._entries[entry.recipe.key]

    async def _evict(self, entry: Entry) -> None:
        if entry.making:  # all who asked have left, and a thread still writes
            await asyncio.wait([entry.making])
        if entry.users:  # taken again since it was chosen
            return
        self._forget(entry)
        await self._unload(entry.name)
        if entry.slate:
            await asyncio.to_thread(entry.slate.remove)

    async def _replace(self, old: Entry, new: Entry) -> None:
        """Evict ``old``, which is idle, and offer its slate to ``new``."""
        self._forget(old)
        await self._unload(old.name)
        if old.slate:
            new.offered.append(old.slate)

    def _put_back(self, entry: Entry) -> None:
        """Remove what the entry was offered and didn't take, or keep it as the spare."""
        offered, entry.offered = entry.offered, []
        for slate in offered:
            if slate is entry.slate or not slate.folder.exists():
                continue
            room = self.used_bytes + slate.bytes <= self._budget
            if slate.clean and slate.bytes == self._spare_bytes and not self._spare and room:
                self._spare = slate
            else:
                self._background(asyncio.to_thread(slate.remove))

    def _refill(self) -> None:
        """Begin to make the spare that is wanted, where there is room for it."""
        size = self._spare_bytes
        room = self.used_bytes + size <= self._budget
        if size and room and not (self._spare or self._spare_making or self._closed):
            self._spare_making = size
            self._background(self._make_spare(size))

    async def _make_spare(self, size: int) -> None:
        self._serial += 1
        path = self._folder / f"spare.{self._serial}"
        try:
            spare = await asyncio.to_thread(Slate.make, path, size)
        except OSError as error:
            log.warning("no spare file for composed adapters was made: %s", error)
            self._spare_bytes = 0
            return
        finally:
            self._spare_making = 0
            self._released.set()
        if size == self._spare_bytes and not self._closed:
            self._spare = spare
        else:
            await asyncio.to_thread(spare.remove)

    def _background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _is_idle(entry: Entry) -> bool:
    return entry.users == 0 and entry.making is None and entry.recipe.folder is None
