"""``kiki bench pipeline``: what a turn costs beside the model, and the start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from gateway.bench.report import Metric, Report, median
from gateway.bench.running import Running, running_gateway
from gateway.settings import load_settings
from memory.bench import measure as measure_memory

Progress = Callable[[str, int, int], None]

HELP_RUNS = 7
GENERATED_TOKENS = 128
# Fifteen mpnet tokens or so; the number makes each one new to the cache.
_PROMPT = "How do I keep only the last {} lines of a log file?"


def measure(requests: int, episodes: int, progress: Progress) -> Report:
    """Start a gateway of its own and measure it; recall is measured on the memory alone."""
    metrics: dict[str, Metric] = {}
    with running_gateway() as gateway:
        metrics["start_s"] = Metric(round(gateway.start_s, 3), "s", 1)
        with httpx.Client(base_url=gateway.url, timeout=300, trust_env=False) as client:
            metrics |= _turns(client, requests, progress)
            metrics["route_p50_ms"] = median(list(_routes(client, requests, progress)), "ms")
            metrics["tokens_per_s"] = _speed(client)
        metrics["rss_mb"] = _rss(gateway)
    metrics["recall_p50_ms"] = _recall(episodes, progress)
    metrics["cli_help_s"] = median([_help() for _ in range(HELP_RUNS)], "s")
    settings = {"requests": requests, "episodes": episodes}
    return Report("pipeline", metrics, settings | load_settings().model_dump(mode="json"))


def _turns(client: httpx.Client, requests: int, progress: Progress) -> dict[str, Metric]:
    """Whole turns with memory on, one after the other; a token each."""
    own, looked = [], []
    for number in range(requests):
        body: dict[str, Any] = {
            "model": "micro-kiki",
            "messages": [{"role": "user", "content": _PROMPT.format(number)}],
            "max_tokens": 1,
            "kiki": {"explain": True, "antibias": True},
        }
        response = client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        kiki = response.json()["kiki"]
        own.append(float(kiki["gateway_ms"]))
        looked.append(_second_look_ms(kiki["stages"]))
        progress("turns", number + 1, requests)
    return {"gateway_p50_ms": median(own, "ms"), "second_look_p50_ms": median(looked, "ms")}


def _second_look_ms(stages: list[dict[str, Any]]) -> float:
    """The gateway's own time of stages 5 and 6, the anti-bias screen among it."""
    return sum(
        float(stage["ms"]) - float(stage["waited_ms"])
        for stage in stages
        if stage["name"] in ("negotiate", "antibias")
    )


def _routes(client: httpx.Client, requests: int, progress: Progress) -> Iterator[float]:
    for number in range(requests):
        query = _PROMPT.format(requests + number)
        began = time.perf_counter()
        client.post("/v1/route", json={"query": query}).raise_for_status()
        yield (time.perf_counter() - began) * 1e3
        progress("routes", number + 1, requests)


def _speed(client: httpx.Client) -> Metric:
    """Tokens a second of one greedy answer, its prompt included."""
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "Tell a long story about a lighthouse."}],
        "max_tokens": GENERATED_TOKENS,
        "temperature": 0,
        "kiki": {"memory": False},
    }
    began = time.perf_counter()
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    tokens = answer["usage"]["completion_tokens"]
    return Metric(round(tokens / (time.perf_counter() - began), 2), "1/s", tokens)


def _rss(gateway: Running) -> Metric:
    return Metric(round(gateway.rss_mb(), 1), "MB", 1)


def _recall(episodes: int, progress: Progress) -> Metric:
    progress("recall", 0, 1)
    with tempfile.TemporaryDirectory(prefix="kiki-bench-") as folder:
        measured = measure_memory(Path(folder), episodes)
    progress("recall", 1, 1)
    return Metric(round(measured.recall_p50_ms, 4), "ms", measured.queries)


def _help() -> float:
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("kiki")), "--help"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
