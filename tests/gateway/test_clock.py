"""The wall clock jumps under ``kiki serve``: nothing that waits may notice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx

from gateway.bench.running import running_gateway, running_module
from gateway.bench.stub_server import SETTINGS

# Python imports a module of this name at its start.
JUMPING = """
import os
import time

real, real_ns = time.time, time.time_ns


def offset():
    with open({file!r}) as file:
        return int(file.read() or 0)


time.time = lambda: real() + offset()
time.time_ns = lambda: real_ns() + offset() * 10**9
"""
DAY = 86_400


def test_the_wall_clock_may_jump_back_and_forth(tmp_path: Path, monkeypatch):
    clock = tmp_path / "offset"
    clock.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(JUMPING.format(file=str(clock)))
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    with running_module("stub_server") as (url, _):
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        settings = SETTINGS | {"vllm_urls": url, "log_level": "error"}
        with (
            running_gateway(settings) as gateway,
            httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as http,
        ):
            created = []
            for jump in (0, -30 * DAY, 30 * DAY, -1, 0):
                clock.write_text(str(jump))
                answer = http.post(
                    "/v1/chat/completions",
                    json={
                        "model": "base",
                        "messages": [{"role": "user", "content": f"Remember {jump}."}],
                        "max_tokens": 2,
                        "user": "kim",
                        "kiki": {"conversation": "clock"},
                    },
                )
                assert answer.status_code == 200, answer.text
                created.append(answer.json()["created"])
                health = http.get("/health").json()
                assert health["components"]["engine"]["ready"]
                assert 0 <= health["uptime_s"] < 300
            assert created[1] < created[0] - 29 * DAY  # the clock did jump
            deadline = time.monotonic() + 30
            while http.get("/health").json()["memory"]["lag"]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            kept = http.get("/v1/memory", params={"user": "kim"}).json()["data"]
    assert {one["text"] for one in kept} >= {
        f"Remember {jump}." for jump in (0, -30 * DAY, 30 * DAY, -1)
    }
