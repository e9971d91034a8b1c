"""A real Prometheus scrapes a real gateway: each panel has data, and a dead engine is told of."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.assets import ModelFiles
from gateway.bench.running import Running, running_gateway
from gateway.observing.dashboards import DASHBOARDS
from gateway.observing.files import RULES
from gateway.observing.prometheus import Prometheus, running_prometheus
from gateway.observing.traffic import traffic

# Shares of what a short traffic may not have: 0 / 0.
MAY_BE_NAN = {"Dissent", "Useful recalls", "Recalled a hit"}
LIMIT_S = 90
SHIPPED = Path(__file__).parents[2] / "adapters" / "shipped"
LATER = "cpp"  # the adapter that comes when all runs


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles
) -> Iterator[tuple[Running, Prometheus]]:
    folder = tmp_path_factory.mktemp("observe")
    shutil.copytree(SHIPPED, folder / "adapters")
    (folder / "adapters" / LATER).rename(folder / LATER)
    rules = folder / "rules.yml"
    rules.write_text(re.sub(r"for: \w+", "for: 0s", RULES.read_text()))
    with (
        running_gateway({"adapters_dir": str(folder / "adapters")}) as gateway,
        running_prometheus(gateway.url, rules, folder, scrape="1s") as prometheus,
    ):
        until(lambda: prometheus.query("kiki_engine_ready == 1"))
        # An engine swaps when its adapters change.
        (folder / LATER).rename(folder / "adapters" / LATER)
        httpx.post(f"{gateway.url}/v1/adapters/refresh", timeout=120, trust_env=False)
        yield gateway, prometheus


def until(true) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def engine_pids(gateway: int) -> list[int]:
    children = Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()
    pids = []
    for pid in children:
        try:
            if "llamacpp.server" in Path(f"/proc/{pid}/cmdline").read_text():
                pids.append(int(pid))
        except FileNotFoundError:
            continue
    return pids


def test_every_query_of_every_panel_has_data_after_traffic(running):
    gateway, prometheus = running
    sent = list(traffic(gateway.url, rounds=1))
    assert {one.what for one in sent if one.status not in (200, 404)} == set()
    empty = [
        (panel.title, query.expr.replace("$__rate_interval", "5m"))
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
    ]

    def all_have_data() -> bool:
        empty[:] = [(title, expr) for title, expr in empty if not _data(prometheus, title, expr)]
        return not empty

    deadline = time.monotonic() + LIMIT_S
    while not all_have_data():
        assert time.monotonic() < deadline, empty
        time.sleep(1)


def _data(prometheus: Prometheus, title: str, expr: str) -> bool:
    values = [float(series["value"][1]) for series in prometheus.query(expr)]
    if title in MAY_BE_NAN:
        return bool(values)
    return any(not math.isnan(value) for value in values)


def test_no_alert_fires_while_all_is_well(running):
    _, prometheus = running
    assert prometheus.firing() <= {"KikiCatfishUncalibrated"}


def test_an_engine_that_is_killed_fires_its_alert(running):
    gateway, prometheus = running

    def fires() -> bool:
        for pid in engine_pids(gateway.pid):  # the gateway starts it again
            os.kill(pid, signal.SIGKILL)
        return "KikiEngineDown" in prometheus.firing()

    until(fires)


def test_ctrl_c_ends_all_that_observe_started():
    command = [sys.executable, "-m", "gateway.observing", "run"]
    addresses: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            addresses += re.findall(r"^(?:gateway|Prometheus) +(http://\S+)", line)
            if line.startswith("Ctrl-C"):
                break
        # A terminal sends it to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0, rest
    assert len(addresses) == 2
    for address in addresses:
        with pytest.raises(httpx.TransportError):
            httpx.get(address, trust_env=False)
