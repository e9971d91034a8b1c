"""Calls to a remote store: an event loop in a thread of its own, and a limit on every call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from kiki.errors import StoreUnavailableError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: ``read_s`` is what an answer waits for a search, ``write_s`` a batch or set-up."""

    read_s: float = 0.5
    write_s: float = 10.0


class LoopThread:
    """Runs coroutines of an async client for callers that block."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"kiki-{name}", daemon=True
        )
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, Result], seconds: float) -> Result:
        """The call's result; it is cancelled after ``seconds``.

        Raises `StoreUnavailableError` when it takes longer, and what the call raises.
        """
        if self._loop.is_closed():
            call.close()
            raise StoreUnavailableError(f"The store {self._name} is closed.")
        future = asyncio.run_coroutine_threadsafe(self._limited(call, seconds), self._loop)
        return future.result()

    async def _limited(self, call: Coroutine[Any, Any, Result], seconds: float) -> Result:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StoreUnavailableError(
                f"The store {self._name} didn't answer in {seconds:g} s."
            ) from error

    def close(self) -> None:
        """Ends the thread; may be called twice."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
