"""Several servers: which one answers a request, and who watches them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Collection, Sequence

from adapters.engines.tasks import end_tasks
from adapters.engines.vllm.upstream import Upstream

log = logging.getLogger("kiki.adapters")


def ranking(key: str, labels: Sequence[str]) -> list[str]:
    """``labels`` in the order in which they should serve ``key``: rendezvous hashing.

    A label that leaves or comes moves only the keys that it was, or becomes, the first for.
    (Thaler and Ravishankar, 1998.)
    """

    def score(label: str) -> bytes:
        return hashlib.sha256(f"{label}\0{key}".encode()).digest()

    return sorted(labels, key=score, reverse=True)


class Replicas:
    """The servers. ``slots`` is how many requests one takes at a time before others help out."""

    def __init__(self, servers: Sequence[Upstream], slots: int, interval: float) -> None:
        self.servers = tuple(servers)
        self._slots = slots
        self._interval = interval
        self._watchers: set[asyncio.Task[None]] = set()

    @property
    def healthy(self) -> list[Upstream]:
        return [server for server in self.servers if server.healthy]

    @property
    def watching(self) -> bool:
        return bool(self._watchers)

    def choose(self, key: str | None, tried: Collection[Upstream] = ()) -> Upstream | None:
        """Who should serve a mix; None where nobody is left.

        The healthy server that comes first for ``key`` and has a slot free, else the one with
        the fewest requests. The base (None) is loaded everywhere: the fewest requests decide.
        """
        able = {server.label: server for server in self.healthy if server not in tried}
        if key is not None:
            ordered = [able[label] for label in ranking(key, list(able))]
            for server in ordered:
                if server.in_flight < self._slots:
                    return server
        else:
            ordered = list(able.values())
        return min(ordered, key=lambda server: server.in_flight, default=None)

    async def unload(self, name: str) -> None:
        """Take an adapter from every server that has it."""
        await asyncio.gather(*(server.unload(name) for server in self.servers))

    def watch(self) -> None:
        """Probe each server from now on: at intervals, and at once where it looked ill."""
        for server in self.servers:
            self._watchers.add(asyncio.create_task(self._watch(server), name="vllm-watcher"))

    async def close(self) -> None:
        if self._watchers:
            await end_tasks(self._watchers)
            self._watchers.clear()
        for server in self.servers:
            await server.close()

    async def _watch(self, server: Upstream) -> None:
        while True:
            if server.healthy:
                await _wait(server.suspect, self._interval)
                if (
                    not server.suspect.is_set()
                    and server.last_token > time.monotonic() - self._interval
                ):
                    continue  # it gives tokens
                server.suspect.clear()
                await server.probe()
            else:
                await asyncio.sleep(server.breaker.wait)
                server.suspect.clear()
                if await server.connect():
                    log.warning("vLLM at %s answers again", server.url)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
