"""What systemd hands to a service and hears from it: the port, readiness, the watchdog.

The protocols are those of sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3). Without
systemd nothing here does anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

log = logging.getLogger("kiki.gateway")

_FIRST_FD = 3


def port_is_kept() -> bool:
    """Whether a socket unit holds the port open for this process and the next."""
    meant = os.environ.get("LISTEN_PID") == str(os.getpid())
    return meant and int(os.environ.get("LISTEN_FDS") or 0) >= 1


def inherited_listener() -> socket.socket | None:
    """The port that the socket unit holds open, None where there is none for this process.

    It stays open in systemd while the gateway restarts, so that callers wait instead of failing.
    """
    if not port_is_kept():
        return None
    os.set_inheritable(_FIRST_FD, False)
    inherited = socket.socket(fileno=_FIRST_FD)
    # With the protocol named, asyncio switches Nagle off.
    return socket.socket(
        inherited.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=inherited.detach()
    )


def notify(state: str) -> None:
    """Tell systemd, for example ``READY=1``. Silent where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.connect(address)
            told.send(state.encode())
    except OSError as error:
        log.warning("systemd can't be told %s: %s", state, error)


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """While it is entered the watchdog is fed from the event loop: one that hangs is restarted."""
    microseconds = int(os.environ.get("WATCHDOG_USEC") or 0)
    meant = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    if not microseconds or not meant:
        yield
        return
    feeding = asyncio.create_task(_feed(microseconds / 2e6))
    try:
        yield
    finally:
        feeding.cancel()


async def _feed(seconds: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
