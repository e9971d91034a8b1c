"""The memory's sleep while the gateway serves: at its time, and when it is asked for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from gateway.settings import Settings
from kiki.errors import StoreError
from memory import Aeon
from memory.cerebellum import Ask
from memory.sleep import SleepReport, SleepSettings, until

log = logging.getLogger("kiki.gateway")


class Nights:
    """The sleeps of one memory, one after the other in a thread of their own."""

    def __init__(self, aeon: Aeon, settings: Settings, ask: Ask | None) -> None:
        self._aeon = aeon
        self._settings = SleepSettings(settings.sleep_ttl_days, settings.sleep_max_episodes)
        self._ask = ask
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kiki-sleep")

    async def sleep(
        self,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> SleepReport:
        """Sleeps once, or says what that would do; after the sleep that goes on. ``progress`` gets
        (owners done, all) in the thread. Raises `StoreError`."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool,
            partial(
                self._aeon.knowledge.sleep,
                self._settings,
                ask=self._ask,
                dry_run=dry_run,
                progress=progress,
                stopping=self._stop.is_set,
            ),
        )

    async def end(self) -> None:
        """Cuts off what goes on after the change in hand; the next sleep goes on."""
        self._stop.set()
        await asyncio.to_thread(self._pool.shutdown)


@asynccontextmanager
async def sleeping(aeon: Aeon, settings: Settings, ask: Ask | None) -> AsyncIterator[Nights]:
    """While it is entered the memory sleeps at ``sleep_at``, and when `Nights.sleep` is called."""
    nights = Nights(aeon, settings, ask)
    done = asyncio.Event()
    scheduled = [asyncio.create_task(_every(at, nights, done))] if (at := settings.sleep_at) else []
    try:
        yield nights
    finally:
        done.set()
        await nights.end()
        await asyncio.gather(*scheduled)


async def _every(sleep_at: str, nights: Nights, done: asyncio.Event) -> None:
    while True:
        try:
            await asyncio.wait_for(done.wait(), until(sleep_at, datetime.now().astimezone()))
            return
        except TimeoutError:
            pass
        try:
            report = await nights.sleep()
        except StoreError as error:
            log.warning("the memory can't sleep: %s", error)
        except Exception:  # the task's boundary: a night that fails doesn't end the nights
            log.exception("the memory's sleep failed; it sleeps again at its time")
        else:
            log.info("the memory slept: %s", told(asdict(report)))


def told(report: Mapping[str, Any]) -> str:
    """The numbers of a `SleepReport`, as a mapping, in a line."""

    def total(what: str) -> int:
        return sum(len(one[what]) for one in report["owners"])

    makers = ", ".join(f"{count} by {maker}" for maker, count in report["summariser"].items())
    return (
        f"{total('summarised')} summaries{f' ({makers})' if makers else ''},"
        f" {total('conflicts')} conflicts tagged,"
        f" {total('evicted')} episodes evicted,"
        f" {total('expired')} expired,"
        f" {total('capped')} over the cap"
    )
