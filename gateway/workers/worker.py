"""One worker's process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING

from gateway.assets import ModelFiles
from gateway.settings import Settings
from gateway.workers.memory import SharedMemory
from gateway.workers.ready import Ready
from kiki.errors import KikiError

if TYPE_CHECKING:
    from gateway.services import Services


def run(
    settings: Settings,
    files: ModelFiles,
    listener: socket.socket,
    shared: SharedMemory,
    told: connection.Connection,
) -> None:
    """Serve until SIGTERM; tells ``told`` once that it is ready, or the error."""
    import uvloop

    from gateway.logs import configure_logging
    from gateway.server import serve

    os.setsid()  # the terminal's Ctrl+C goes to the parent, which lets requests finish
    _end_with_parent()
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):  # systemd hears the parent
        os.environ.pop(name, None)
    configure_logging(settings.log_level, settings.log_format, settings.log_file)

    def say_ready(services: Services) -> None:
        told.send(Ready.of(services))

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, files, listener, say_ready, shared))
    except KikiError as error:
        told.send(error)


def _end_with_parent() -> None:
    """A parent that is killed hands no signal on."""
    parent = parent_process()
    assert parent

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
