"""The process: services, HTTP server, signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from gateway.app import create_app
from gateway.assets import ModelFiles
from gateway.services import Services
from gateway.settings import Settings
from gateway.supervision import notify, watched

BACKLOG = 2048
_LINGER_S = 1.0
_LINGER_STEPS = 100


class _Server(uvicorn.Server):
    """Stops on SIGINT and SIGTERM without raising them again, so that the exit code is 0."""

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
            if not self._unasked():
                break
            await asyncio.sleep(_LINGER_S / _LINGER_STEPS)
        await super().shutdown(sockets)

    def _unasked(self) -> bool:
        connections = self.server_state.connections
        return any(getattr(connection, "cycle", self) is None for connection in connections)


def _spare_collector() -> None:
    """Keep the garbage collector away from what the start made, which stays: searching it again
    and again took a third of a request's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def serve(
    settings: Settings,
    files: ModelFiles,
    listener: socket.socket,
    on_ready: Callable[[Services], None],
) -> None:
    """Start everything, answer until a signal comes, stop everything.

    ``on_ready`` is called once the first token was generated and requests are accepted. Raises
    KikiError when a part can't start.
    """
    services = await Services.start(settings, files)
    try:
        _spare_collector()
        config = uvicorn.Config(
            create_app(services),
            log_config=None,
            access_log=settings.log_level == "debug",
            lifespan="off",
            timeout_graceful_shutdown=30,
        )
        listener.listen(BACKLOG)
        on_ready(services)
        notify("READY=1")
        async with watched():
            await _Server(config).serve(sockets=[listener])
    finally:
        notify("STOPPING=1")
        await services.stop()
