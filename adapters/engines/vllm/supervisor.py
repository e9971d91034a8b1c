"""Runs ``vllm serve`` for a gateway: ``python -m adapters.engines.vllm.supervisor``.

Reads one line of JSON from stdin (the command), runs it with a free port, prints one line of JSON
with the address once it listens, and ends the server when stdin closes, so that it can't outlive
a parent that was killed and keep the device's memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Seconds between asking the server to end and ending it, and then for what it left; the parent
# waits 5.
GRACE, CLEAN_UP = 3.0, 1.5


def main() -> None:
    line = sys.stdin.readline()
    if not line:  # the gateway is gone, or gave up
        return
    command = json.loads(line)["command"]
    port = _free_port()
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # the address is the only line on stdout
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    threading.Thread(target=_end_when_stdin_closes, args=(server,), daemon=True).start()
    while server.poll() is None and not _listens(port):
        time.sleep(0.1)
    if server.poll() is None:
        print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    code = server.wait()
    _end_group(server.pid)
    os._exit(code if code >= 0 else 128 - code)


def _end_when_stdin_closes(server: subprocess.Popen[bytes]) -> None:
    sys.stdin.read()
    server.terminate()  # it ends its workers in order, and frees their shared memory
    time.sleep(GRACE)
    server.kill()


def _end_group(group: int) -> None:
    """End the workers that a server left behind.

    Python's resource tracker is among them: it ignores the request, frees their shared memory
    once they are gone, and ends; killed too early, it would leave that behind.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + CLEAN_UP
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def _end_with_parent() -> None:
    # This process may be killed outright; on Linux the kernel then tells the server to end.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
