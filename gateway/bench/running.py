"""A gateway of its own process for a benchmark, on a free port and an empty memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.settings import ENV_PREFIX
from kiki.errors import EngineUnavailableError

START_LIMIT_S = 180


@dataclass(frozen=True, slots=True)
class Running:
    """Its address, process id, and the seconds from the command to "kiki answers"."""

    url: str
    pid: int
    start_s: float

    def rss_mb(self) -> float:
        """Resident memory of the gateway's own process, without the engine's."""
        command = ["ps", "-o", "rss=", "-p", str(self.pid)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(output) / 1024


@contextmanager
def running_gateway(settings: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start ``kiki serve`` with these settings, give it, stop it.

    Raises EngineUnavailableError if it doesn't start.
    """
    with tempfile.TemporaryDirectory(prefix="kiki-bench-") as folder:
        own = {"data_dir": folder, "port": "0", **(settings or {})}
        environment = os.environ | {ENV_PREFIX + name.upper(): own[name] for name in own}
        command = [sys.executable, "-m", "gateway", "serve"]
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            url = _address(process, began)
            yield Running(url, process.pid, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait(30)
            if process.stdout:
                process.stdout.close()


@contextmanager
def running_module(name: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """A server of ``gateway.bench`` in a process of its own: its address and process id."""
    command = [sys.executable, "-m", f"gateway.bench.{name}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _address(process: subprocess.Popen[str], began: float) -> str:
    assert process.stdout
    for line in process.stdout:
        found = re.search(r"http://\S+?(?=/v1)", line)
        if found:
            return found.group()
        if time.perf_counter() - began > START_LIMIT_S:
            break
    raise EngineUnavailableError(
        "The gateway to be measured did not start.", fix="Start one by hand: kiki serve --port 0"
    )


def cpu_seconds(pid: int) -> float | None:
    """What the process has used so far; None where the system doesn't say it (not Linux)."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        return None
