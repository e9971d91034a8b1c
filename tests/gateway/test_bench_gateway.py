"""``kiki bench gateway`` in its smallest size: what the report holds. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys

METRICS = {
    "p50_ms": "ms",
    "overhead_p50_ms": "ms",
    "rps": "1/s",
    "rps_over_bare_proxy": "ratio",
    "stub_p50_ms": "ms",
    "stub_rps": "1/s",
    "bare_proxy_p50_ms": "ms",
    "bare_proxy_rps": "1/s",
    "stream_latency_us_per_token": "us",
}
ON_LINUX = {
    "cpu_us_per_request": "us",
    "stub_cpu_us_per_request": "us",
    "bare_proxy_cpu_us_per_request": "us",
    "stream_us_per_token": "us",
    "bare_proxy_stream_us_per_token": "us",
}


def test_the_report_holds_every_metric_with_its_unit_and_says_what_is_left_out():
    command = [sys.executable, "-m", "gateway", "bench", "gateway", "--json"]
    smallest = ["--rounds", "1", "--seconds", "0.2", "--connections", "2"]
    result = subprocess.run([*command, *smallest], capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    expected = METRICS | (ON_LINUX if sys.platform == "linux" else {})
    assert {name: one["unit"] for name, one in report["metrics"].items()} == expected
    assert all(one["value"] > 0 for one in report["metrics"].values())
    assert "--litellm" in report["left_out"]["litellm"]
