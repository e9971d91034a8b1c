"""The gateway under systemd's protocols: the port is handed to it, and it says how it is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

# What systemd does before it runs a service: the listener becomes descriptor 3.
AS_SYSTEMD = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
    "os.execv(sys.executable, [sys.executable, '-m', 'gateway', 'serve'])"
)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(128)
        yield held


@pytest.fixture
def told(tmp_path) -> Iterator[socket.socket]:
    """The socket on which systemd hears of a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(120)
        yield heard


@contextmanager
def service(
    folder: Path, listener: socket.socket, told: socket.socket
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", AS_SYSTEMD, str(listener.fileno())],
        pass_fds=(listener.fileno(),),
        env=os.environ
        | {
            "KIKI_DATA_DIR": str(folder),
            "NOTIFY_SOCKET": told.getsockname(),
            "WATCHDOG_USEC": "400000",
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def hear(told: socket.socket, state: str) -> None:
    while told.recv(64).decode() != state:
        pass


def ask(url: str) -> httpx.Response:
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 2,
        "kiki": {"memory": False},
    }
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)


def test_a_restart_under_a_socket_unit_loses_no_request(tmp_path, listener, told):
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    seen: list[int | str] = []
    over = threading.Event()

    def callers() -> None:
        while not over.is_set():
            try:
                seen.append(ask(url).status_code)
            except httpx.HTTPError as error:
                seen.append(repr(error))

    threads = [threading.Thread(target=callers) for _ in range(2)]
    with service(tmp_path / "data", listener, told) as first:
        hear(told, "READY=1")
        for thread in threads:
            thread.start()
        hear(told, "WATCHDOG=1")
        hear(told, "WATCHDOG=1")
        first.send_signal(signal.SIGTERM)
        hear(told, "STOPPING=1")
        assert first.wait(60) == 0
    with service(tmp_path / "data", listener, told):
        hear(told, "READY=1")
        hear(told, "WATCHDOG=1")
        over.set()
        for thread in threads:
            thread.join(60)
    assert set(seen) == {200}


def test_a_port_that_was_handed_to_another_process_is_left_alone(monkeypatch):
    from gateway.supervision import inherited_listener

    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited_listener() is None
