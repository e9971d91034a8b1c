"""Debian's Prometheus, scraping a gateway by the rules of deploy/prometheus."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kiki.errors import KikiError

START_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server that runs at ``url``."""

    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query, as Prometheus' API gives them."""
        return list(self._get("query", query=expr)["result"])

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self._get("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        response = httpx.get(f"{self.url}/api/v1/{path}", params=params, trust_env=False)
        body = response.json()
        if body["status"] != "success":
            raise KikiError(f"Prometheus refuses {params or path}: {body['error']}.")
        data: dict[str, Any] = body["data"]
        return data


@contextmanager
def running_prometheus(
    gateway: str, rules: Path, folder: Path, *, scrape: str = "2s", key: str | None = None
) -> Iterator[Prometheus]:
    """Start a Prometheus on a free port that scrapes the gateway at ``gateway``, give it, stop it.

    ``folder`` takes its data, configuration and log. Raises KikiError where it isn't installed,
    where the rules are wrong, or where it doesn't start.
    """
    program, promtool = (_installed(name) for name in ("prometheus", "promtool"))
    checked(promtool, rules)
    config = folder / "prometheus.yml"
    config.write_text(_config(gateway, rules, scrape, key))
    port = _free_port()
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, log)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(30)


def checked(promtool: str, rules: Path) -> None:
    """Raises KikiError with the file and what is wrong in it."""
    ran = subprocess.run(
        [promtool, "check", "rules", rules], check=False, capture_output=True, text=True
    )
    if ran.returncode:
        said = [line.strip() for line in (ran.stdout + ran.stderr).splitlines()]
        wrong = [line.removeprefix(f"{rules}: ") for line in said if line]
        wrong = [line for line in wrong if not line.startswith(("Checking", "FAILED"))]
        raise KikiError(
            f"{rules}: {' '.join(wrong[:2])}.", fix=f"Mend it; promtool check rules {rules} checks."
        )


def _installed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise KikiError(f"{name} isn't installed.", fix="As root: scripts/debian-tools prometheus.")
    return found


def _config(gateway: str, rules: Path, scrape: str, key: str | None) -> str:
    authorization = f"\n    authorization: {{credentials: {key}}}" if key else ""
    return f"""global:
  scrape_interval: {scrape}
  evaluation_interval: {scrape}
rule_files: ['{rules.resolve()}']
scrape_configs:
  - job_name: kiki{authorization}
    static_configs:
      - targets: ['{gateway.removeprefix("http://")}']
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    last = log.read_text().strip().splitlines()[-1:]
    raise KikiError(f"Prometheus didn't start: {''.join(last) or 'it said nothing'}")
