"""The process: services, HTTP server, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from gateway.admission.draining import Drain
from gateway.app import create_app
from gateway.assets import ModelFiles
from gateway.connections import Patience, allow_many_connections, protocol
from gateway.process import spare_collector, use_one_arena
from gateway.services import Services
from gateway.settings import Settings
from gateway.supervision import notify, port_is_kept, watched
from gateway.workers.memory import SharedMemory

log = logging.getLogger("kiki.gateway")

BACKLOG = 2048
_CLOSE_S = 1
_LINGER_S = 1.0
_LINGER_STEPS = 100


class _Server(uvicorn.Server):
    """Stops on SIGINT and SIGTERM without raising them again, so that the exit code is 0.

    The first signal lets running requests finish, and new ones are told to go elsewhere. Where
    systemd keeps the port for the next process, new ones wait for that instead. The second signal
    ends what runs.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stopping is None:
            log.info("stopping: %d requests run", self._drain.running)
            self._stopping = asyncio.create_task(self._stop())
            return
        log.warning("stopping at once: %d requests are cut off", self._drain.running)
        self.should_exit = self.force_exit = True
        self.config.timeout_graceful_shutdown = _CLOSE_S
        for task in self.server_state.tasks:
            task.cancel()

    async def _stop(self) -> None:
        if port_is_kept():
            self.config.timeout_graceful_shutdown = math.ceil(self._drain_s)
        else:
            if not await self._drain.finished(self._drain_s):
                log.warning(
                    "%d requests are cut off after %g s", self._drain.running, self._drain_s
                )
            self.config.timeout_graceful_shutdown = _CLOSE_S
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, and answers those who were accepted and have yet to send a request:
        under systemd's socket unit the next process answers everyone after them."""
        for server in self.servers:
            server.close()
        for _ in range(_LINGER_STEPS):
            if self.force_exit or not self._unasked():
                break
            await asyncio.sleep(_LINGER_S / _LINGER_STEPS)
        await super().shutdown(sockets)

    def _unasked(self) -> bool:
        connections = self.server_state.connections
        return any(getattr(connection, "cycle", self) is None for connection in connections)


async def serve(
    settings: Settings,
    files: ModelFiles,
    listener: socket.socket,
    on_ready: Callable[[Services], None],
    shared: SharedMemory | None = None,
) -> None:
    """Start everything, answer until a signal comes, stop everything.

    ``on_ready`` is called once the first token was generated and requests are accepted. With
    ``shared`` this is one of several workers. Raises KikiError when a part can't start.
    """
    use_one_arena()
    services = await Services.start(settings, files, shared)
    try:
        spare_collector()
        allow_many_connections()
        config = uvicorn.Config(
            create_app(services),
            log_config=None,
            access_log=False,
            http=protocol(Patience(settings.request_arrival_s, settings.reading_stall_s)),
            lifespan="off",
            proxy_headers=False,
            server_header=False,
        )
        listener.listen(BACKLOG)
        on_ready(services)
        notify("READY=1")
        async with watched():
            server = _Server(config, services.drain, settings.drain_s)
            await server.serve(sockets=[listener])
    finally:
        notify("STOPPING=1")
        await services.stop()
