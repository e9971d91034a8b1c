"""The memory sleeps on schedule, while the gateway serves."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from gateway.settings import Settings
from kiki.errors import StoreError
from memory import Aeon
from memory.cerebellum import Ask
from memory.sleep import SleepReport, SleepSettings, until

log = logging.getLogger("kiki.gateway")


def sleep_settings(settings: Settings) -> SleepSettings:
    return SleepSettings(settings.sleep_ttl_days, settings.sleep_max_episodes)


@asynccontextmanager
async def sleeping(aeon: Aeon, settings: Settings, ask: Ask | None) -> AsyncIterator[None]:
    """While it is entered the memory sleeps at ``sleep_at``; a sleep that goes on at the end is
    cut off after the change in hand, and the next one goes on."""
    if settings.sleep_at is None:
        yield
        return
    stop = threading.Event()
    done = asyncio.Event()
    task = asyncio.create_task(_nights(aeon, settings, ask, stop, done))
    try:
        yield
    finally:
        stop.set()
        done.set()
        await task


async def _nights(
    aeon: Aeon, settings: Settings, ask: Ask | None, stop: threading.Event, done: asyncio.Event
) -> None:
    assert settings.sleep_at is not None
    while True:
        try:
            await asyncio.wait_for(
                done.wait(), until(settings.sleep_at, datetime.now().astimezone())
            )
            return
        except TimeoutError:
            pass
        try:
            report = await asyncio.to_thread(
                aeon.knowledge.sleep, sleep_settings(settings), ask=ask, stopping=stop.is_set
            )
        except StoreError as error:
            log.warning("the memory can't sleep: %s", error)
        except Exception:  # the task's boundary: a night that fails doesn't end the nights
            log.exception("the memory's sleep failed; it sleeps again at its time")
        else:
            log.info("the memory slept: %s", told(report))


def told(report: SleepReport) -> str:
    """The report's numbers in a line."""
    summaries = sum(len(one.summarised) for one in report.owners)
    makers = ", ".join(f"{count} by {maker}" for maker, count in report.summariser.items())
    return (
        f"{summaries} summaries{f' ({makers})' if makers else ''},"
        f" {sum(len(one.conflicts) for one in report.owners)} conflicts tagged,"
        f" {sum(len(one.evicted) for one in report.owners)} episodes evicted,"
        f" {sum(len(one.expired) for one in report.owners)} expired,"
        f" {sum(len(one.capped) for one in report.owners)} over the cap"
    )
