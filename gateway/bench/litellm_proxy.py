"""LiteLLM's proxy in front of the benchmark's stub, where it is installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from kiki.errors import EngineUnavailableError

START_LIMIT_S = 180.0
_SETTINGS = {
    # The table of prices comes with the package, and would else be fetched at the start.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # No key, as in front of it kiki has none; it listens on loopback.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


@contextmanager
def running_litellm(program: Path, upstream: str, model: str) -> Iterator[str]:
    """Start it with one worker, without a database; give its address; stop it.

    Raises EngineUnavailableError if it doesn't start.
    """
    parameters = {"model": f"openai/{model}", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": "base", "litellm_params": parameters}]}
    with tempfile.TemporaryDirectory(prefix="kiki-bench-") as folder:
        file = Path(folder) / "litellm.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        command = [str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
        # Its packages are its own: those of this environment must not come before them.
        environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        environment |= _SETTINGS
        process = subprocess.Popen(
            [*command, "--num_workers", "1", "--telemetry", "False"],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(url, process)
            yield url
        finally:
            process.kill()
            process.wait()


def version(program: Path) -> str:
    """What it says of itself."""
    told = subprocess.run([str(program), "--version"], capture_output=True, text=True)
    return told.stdout.strip().splitlines()[-1] if told.stdout.strip() else "unknown"


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/liveliness", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise EngineUnavailableError(
        "LiteLLM's proxy did not start.", fix="Start it by hand to see why, or leave --litellm out."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
