"""``kiki bench gateway``: what the gateway adds to a server that answers at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.bench import stub_server
from gateway.bench.litellm_proxy import running_litellm, version
from gateway.bench.load import Job, Load
from gateway.bench.report import Metric, Report, median
from gateway.bench.running import cpu_seconds, running_gateway, running_module
from kiki.errors import EngineError

Progress = Callable[[str, int, int], None]

TOKENS = 16
STREAMS, STREAM_TOKENS = 16, 500
SETTINGS = stub_server.SETTINGS | {
    "memory": "false",
    "antibias": "false",
    "adapters_watch": "false",
    "engine_slots": "64",
    "log_level": "warning",
}
"""The pass-through path: the model ``base``, plan single, no memory, no anti-bias stage."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server under test. ``pid`` is None for one whose processor time isn't wanted."""

    name: str
    url: str
    pid: int | None
    model: str

    def job(self, *, stream: bool = False, **fields: int | float) -> Job:
        prompt = stub_server.PACED if stream else "What is a gateway?"
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": STREAM_TOKENS if stream else TOKENS,
            "stream": stream,
        }
        url = self.url + "/v1/chat/completions"
        return Job(url, json.dumps(body), **fields)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Sizes:
    """``requests`` of each latency, ``seconds`` and ``connections`` of each throughput.

    With ``workers`` above 1 a second gateway, of so many processes, is measured beside the first.
    """

    rounds: int = 5
    requests: int = 300
    seconds: float = 2.0
    connections: int = 16
    workers: int = 1


def measure(sizes: Sizes, litellm: Path | None, progress: Progress) -> Report:
    """Start the stub, a bare proxy, the gateway and, where it is given, LiteLLM; load each in
    turn, round by round. Raises EngineError when one of them answers with an error."""
    left_out: dict[str, str] = {}
    settings = {**SETTINGS, "tokens": TOKENS, **asdict(sizes)}
    with ExitStack() as stack:
        stub = stack.enter_context(running_module("stub_server"))
        proxy = stack.enter_context(running_module("bare_proxy", stub[0]))
        kiki = stack.enter_context(running_gateway(SETTINGS | {"vllm_urls": stub[0]}))
        targets = [
            Target("stub", *stub, stub_server.MODEL),
            Target("bare_proxy", *proxy, stub_server.MODEL),
            Target("kiki", kiki.url, kiki.pid, "base"),
        ]
        if sizes.workers > 1:
            several = SETTINGS | {"vllm_urls": stub[0], "workers": str(sizes.workers)}
            pool = stack.enter_context(running_gateway(several))
            targets.append(Target("workers", pool.url, None, "base"))
        if litellm:
            url = stack.enter_context(running_litellm(litellm, stub[0], stub_server.MODEL))
            targets.append(Target("litellm", url, None, "base"))
            settings["litellm"] = version(litellm)
        else:
            left_out["litellm"] = "it compares with LiteLLM's proxy: name its program by --litellm"
        load = stack.enter_context(_loader())
        runs = _rounds(targets, sizes, load, progress)
        metrics = _metrics(runs) | _streaming(targets[:3], sizes.rounds, load, progress)
    return Report("gateway", metrics, settings, left_out)


Ask = Callable[[Job], Load]


@dataclass(frozen=True, slots=True)
class _Round:
    """One target in one round: a single caller's median, and what many callers get."""

    p50_ms: float
    rps: float
    cpu_us: float | None


def _rounds(
    targets: list[Target], sizes: Sizes, load: Ask, progress: Progress
) -> dict[str, list[_Round]]:
    for target in targets:  # connections are made, code paths are warm
        load(target.job(connections=sizes.connections, requests=5))
    runs: dict[str, list[_Round]] = defaultdict(list)
    for number in range(sizes.rounds):
        for target in targets:
            alone = load(target.job(requests=sizes.requests))
            before = cpu_seconds(target.pid) if target.pid else None
            many = load(target.job(connections=sizes.connections, seconds=sizes.seconds))
            after = cpu_seconds(target.pid) if target.pid else None
            used = None if before is None or after is None else after - before
            runs[target.name].append(
                _Round(
                    alone.p50_ms,
                    many.requests / many.seconds,
                    None if used is None else used / many.requests * 1e6,
                )
            )
        progress("rounds", number + 1, sizes.rounds)
    return runs


def _metrics(runs: Mapping[str, list[_Round]]) -> dict[str, Metric]:
    """Ratios and differences are taken within a round."""
    kiki = runs["kiki"]
    metrics = {
        "p50_ms": median([one.p50_ms for one in kiki], "ms"),
        "overhead_p50_ms": median(
            [one.p50_ms - stub.p50_ms for one, stub in zip(kiki, runs["stub"], strict=True)], "ms"
        ),
        "rps": median([one.rps for one in kiki], "1/s"),
        "rps_over_bare_proxy": _ratio(kiki, runs["bare_proxy"]),
    }
    if "workers" in runs:
        metrics["rps_workers_over_one"] = _ratio(runs["workers"], kiki)
    if "litellm" in runs:
        metrics["rps_over_litellm"] = _ratio(kiki, runs["litellm"])
    for name, rounds in runs.items():
        if name != "kiki":
            metrics[f"{name}_p50_ms"] = median([one.p50_ms for one in rounds], "ms")
            metrics[f"{name}_rps"] = median([one.rps for one in rounds], "1/s")
        if cpu := [one.cpu_us for one in rounds if one.cpu_us is not None]:
            label = "cpu_us" if name == "kiki" else f"{name}_cpu_us"
            metrics[f"{label}_per_request"] = median(cpu, "us")
    return metrics


def _ratio(ours: list[_Round], theirs: list[_Round]) -> Metric:
    return median([a.rps / b.rps for a, b in zip(ours, theirs, strict=True)], "ratio")


def _streaming(
    targets: list[Target], rounds: int, load: Ask, progress: Progress
) -> dict[str, Metric]:
    """Tokens that come one at a time: processor time a token, and how much later each is there."""
    cpu: dict[str, list[float]] = defaultdict(list)
    later: list[float] = []
    for number in range(rounds):
        arrived: dict[str, float] = {}
        for target in targets:
            before = cpu_seconds(target.pid) if target.pid else None
            done = load(target.job(stream=True, connections=STREAMS, requests=1))
            after = cpu_seconds(target.pid) if target.pid else None
            if before is not None and after is not None:
                cpu[target.name].append((after - before) / done.tokens * 1e6)
            arrived[target.name] = done.token_us or 0.0
        later.append(arrived["kiki"] - arrived["stub"])
        progress("streams", number + 1, rounds)
    metrics = {"stream_latency_us_per_token": median(later, "us")}
    if cpu["kiki"]:
        metrics["stream_us_per_token"] = median(cpu["kiki"], "us")
        metrics["bare_proxy_stream_us_per_token"] = median(cpu["bare_proxy"], "us")
    return metrics


@contextmanager
def _loader() -> Iterator[Ask]:
    command = [sys.executable, "-m", "gateway.bench.load"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask(job: Job) -> Load:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(asdict(job)) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if "error" in answer:
                raise EngineError(f"{job.url} answered: {answer['error']}")
            return Load(**answer)

        try:
            yield ask
        finally:
            process.kill()
