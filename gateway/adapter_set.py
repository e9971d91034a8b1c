"""The adapters being served: brought in line with the folder at the start, on request, by watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.adapter import Adapter, Refusal
from adapters.catalog import Catalog
from adapters.engines.base import Engine
from gateway.models import Models
from kiki.errors import KikiError

log = logging.getLogger("kiki.gateway")

LOOK_MS = 3000
SETTLE_MS = 1500  # an adapter that is being copied in changes until it is whole


@dataclass(frozen=True, slots=True)
class Change:
    """What one refresh did: names, and what is left out with the reasons."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    refused: tuple[Refusal, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class AdapterSet:
    """Keeps engine and model names equal to the fit adapters of the folder."""

    def __init__(self, catalog: Catalog, engine: Engine, models: Models) -> None:
        self._catalog = catalog
        self._engine = engine
        self._models = models
        self._lock = asyncio.Lock()
        self.serving: Mapping[str, Adapter] = {}
        self.refused: tuple[Refusal, ...] = ()

    async def refresh(self) -> Change:
        """Read the folder and serve what is fit.

        All of it or nothing: an engine that can't take the new set goes on with the old one.
        Raises AdapterError where the folder can't be read, or what the engine raises.
        """
        async with self._lock:
            snapshot = await asyncio.to_thread(self._catalog.scan)
            unfit = await self._engine.set_adapters(snapshot.adapters)
            out = {refusal.name for refusal in unfit}
            self._models.load(self._engine.adapters)
            before, now = self.serving, {a.name: a for a in snapshot.adapters if a.name not in out}
            self.serving = now
            self.refused = tuple(sorted((*snapshot.refused, *unfit), key=lambda one: one.name))
        change = Change(
            added=tuple(name for name in now if name not in before),
            removed=tuple(name for name in before if name not in now),
            changed=tuple(
                name
                for name, adapter in now.items()
                if name in before and before[name].fingerprint != adapter.fingerprint
            ),
            refused=self.refused,
        )
        for refusal in unfit:
            log.error("adapter %s is left out: %s", refusal.name, refusal.reason)
        if change:
            log.info(
                "adapters: %d served; added %s; removed %s; changed %s",
                len(now),
                *(", ".join(names) or "none" for names in _names(change)),
            )
        return change

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Refresh whenever the folder changes, while in here."""
        task = asyncio.create_task(self._watch(), name="adapters-watch")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        """Goes on whatever happens; a folder that went away is waited for."""
        while True:
            if self._catalog.folder.is_dir():
                try:
                    await self._until_gone()
                except Exception:
                    log.exception("watching %s failed; it is tried again", self._catalog.folder)
                log.warning("%s is gone or another folder; looking for it", self._catalog.folder)
            await asyncio.sleep(SETTLE_MS / 1000)

    async def _until_gone(self) -> None:
        from watchfiles import awatch

        folder = self._catalog.folder
        watched = _identity(folder)
        changes = awatch(
            folder,
            step=SETTLE_MS,
            debounce=20 * SETTLE_MS,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            # The usual filter passes over everything below a folder called .venv.
            watch_filter=None,
        )
        async with contextlib.aclosing(changes):
            first = True  # something may have come before the watch began
            async for change in changes:
                if change or first:
                    await self._try_refresh()
                first = False
                # It is the folder's inode that is watched, not its name.
                if _identity(folder) != watched:
                    return

    async def _try_refresh(self) -> None:
        try:
            await self.refresh()
        except KikiError as error:
            log.error("the adapters stay as they are: %s", error)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _names(change: Change) -> tuple[tuple[str, ...], ...]:
    return change.added, change.removed, change.changed
