"""A gateway of its own process for a benchmark, on a free port and an empty memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
def running_gateway() -> Iterator[Running]:
    """Start ``kiki serve``, give it, stop it. Raises EngineUnavailableError if it doesn't start."""
    with tempfile.TemporaryDirectory(prefix="kiki-bench-") as folder:
        environment = os.environ | {ENV_PREFIX + "DATA_DIR": folder, ENV_PREFIX + "PORT": "0"}
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
