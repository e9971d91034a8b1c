"""A server that speaks Neo4j's Bolt, in a process of its own: ArcadeDB, which brings its Java.

As a program (folder, Bolt port, HTTP port) it says "ready", and runs until its input ends.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "only-for-tests"
DATABASE = "kiki"


@contextmanager
def bolt_server(folder: Path) -> Iterator[str]:
    """Its address; the user is root."""
    bolt, http = _free_port(), _free_port()
    with subprocess.Popen(
        [sys.executable, __file__, str(folder), str(bolt), str(http)],
        cwd=folder,  # for its log
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        if not any(line.strip() == "ready" for line in server.stdout):
            raise RuntimeError("ArcadeDB did not start")
        try:
            yield f"bolt://127.0.0.1:{bolt}"
        finally:
            server.kill()  # a SIGTERM crashes Java inside Python


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(folder: str, bolt: int, http: int) -> None:
    import arcadedb_embedded

    server = arcadedb_embedded.create_server(
        folder,
        root_password=PASSWORD,
        config={
            "host": "127.0.0.1",
            "http_port": http,
            "bolt_host": "127.0.0.1",
            "bolt_port": bolt,
            "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
            "mode": "production",
        },
    )
    server.start()
    server.create_database(DATABASE)
    print("\nready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
