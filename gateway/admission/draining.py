"""Stopping without dropping what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Drain:
    """Counts the requests that run; once it has begun, no new ones are taken."""

    def __init__(self) -> None:
        self.begun = False
        self._running = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """One that runs."""
        self._running += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._empty.set()

    @property
    def running(self) -> int:
        return self._running

    async def finished(self, seconds: float) -> bool:
        """Begin, and wait for those that run; False when some do so after ``seconds``."""
        self.begun = True
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
