"""``kiki bench router``: what a route costs, and whether its embedding is the model's own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from gateway.assets import ensure_models
from gateway.bench.options import Progress
from gateway.bench.pairs import in_turn, ratio, timed
from gateway.bench.report import Metric, Report, median
from gateway.bench.torch_mpnet import TorchMpnet, torch_by
from gateway.settings import load_settings
from kiki.errors import KikiError
from routing import model_files
from routing.conversation import Conversations
from routing.embedder import Embedder
from routing.neighbours import DATA
from routing.router import Router

STARTS = 5
HEADS = 400
SAMPLE = 60
AT_ONCE = 64
"""Requests under way at a time, for the rate."""
# Fifteen mpnet tokens; the number makes each one new to the cache.
_PROMPT = "How do I keep only the last {} lines of a log file?"


def measure(prompts: int, progress: Progress) -> Report:
    """Measure the router alone, in this process; its start in processes of their own.

    Args:
        prompts: for each of the timings.
    """
    settings = load_settings()
    folder = ensure_models(settings).embedder
    embedder = Embedder(folder, threads=settings.router_threads)
    router = Router.load(embedding_id=embedder.id)
    conversations = Conversations(router, embedder)
    texts = _unique()
    metrics, left_out = {}, {}
    conversations.route(next(texts))
    alone = [_timed(conversations, next(texts)) for _ in range(prompts)]
    progress("routes", prompts, prompts)
    metrics["route_p50_ms"] = median(alone, "ms")
    metrics["head_p50_ms"] = _head(router, embedder, [next(texts) for _ in range(HEADS)])
    metrics["routes_per_s"] = _rate(conversations, [next(texts) for _ in range(4 * prompts)])
    progress("routes at once", 4 * prompts, 4 * prompts)
    metrics["first_route_s"] = _starts(progress)
    try:
        metrics |= _against_torch(conversations, embedder, texts, prompts, progress)
    except (ImportError, KikiError) as error:
        left_out["torch"] = f"{error} It needs the training packages: make setup-dev."
    tokens = len(embedder.token_ids(_PROMPT.format(1234)))
    options = {"prompts": prompts, "prompt_tokens": tokens, "torch_by": torch_by()}
    return Report("router", metrics, options | settings.model_dump(mode="json"), left_out)


def _unique() -> Iterator[str]:
    return (_PROMPT.format(number) for number in range(1000, 10_000))


def _timed(conversations: Conversations, text: str) -> float:
    return timed(lambda: conversations.route(text)) * 1e3


def _head(router: Router, embedder: Embedder, texts: list[str]) -> Metric:
    """Each text is new to the router; the vector is that of the first, for it costs no less."""
    vector = embedder.embed(texts[:1])[0]
    return median([timed(partial(router.route, vector, text)) * 1e3 for text in texts], "ms")


def _rate(conversations: Conversations, texts: list[str]) -> Metric:
    """As a server does it: many requests wait, the embedder runs what waits in batches."""

    async def run() -> float:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(text: str) -> None:
            async with slots:
                conversations.decide(await conversations.hear(text))

        began = time.perf_counter()
        await asyncio.gather(*map(one, texts))
        return time.perf_counter() - began

    return Metric(round(len(texts) / asyncio.run(run()), 2), "1/s", len(texts))


def _starts(progress: Progress) -> Metric:
    """From the command to the first route that it prints."""
    kiki = str(Path(sys.executable).with_name("kiki"))
    times = []
    for number in range(STARTS):
        command = [kiki, "route", "--json", _PROMPT.format(number)]
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
        progress("starts", number + 1, STARTS)
    return median(times, "s")


def _against_torch(
    conversations: Conversations,
    embedder: Embedder,
    texts: Iterator[str],
    prompts: int,
    progress: Progress,
) -> dict[str, Metric]:
    """The same weights in float32 on torch: how far the vectors are off, and how long it takes."""
    source = model_files.pull_source(load_settings().models_dir)
    with TorchMpnet(source, threads=load_settings().router_threads) as torch_model:
        torch_model.embed(["to get started"])
        shared = [next(texts) for _ in range(prompts)]
        of_ours, of_torch = iter(shared), iter(shared)

        def ours() -> float:
            return _timed(conversations, next(of_ours))

        def torchs() -> float:
            text = next(of_torch)
            progress("against torch", shared.index(text) + 1, prompts)
            return timed(lambda: torch_model.embed([text])) * 1e3

        our_ms, torch_ms = in_turn(prompts, ours, torchs)
        metrics = {
            "torch_p50_ms": median(torch_ms, "ms"),
            "torch_over_route": ratio(torch_ms, our_ms),
        }
        sample = _sample()
        batch = embedder.embed(sample)
        fresh = Embedder(_folder(), threads=load_settings().router_threads)
        alone = np.concatenate([fresh.embed([text]) for text in sample])
        exact = np.concatenate([torch_model.embed([text]) for text in sample])
    progress("cosines", len(sample), len(sample))
    lowest = min(float((vectors * exact).sum(axis=1).min()) for vectors in (alone, batch))
    return metrics | {
        "embedding_cosine_min": Metric(round(lowest, 6), "cosine", len(sample)),
        "batch_cosine_min": Metric(
            round(float((alone * batch).sum(axis=1).min()), 6), "cosine", len(sample)
        ),
    }


def _folder() -> Path:
    return load_settings().models_dir / model_files.NAME


def _sample() -> list[str]:
    """Prompts of every kind and domain, the same ones each time."""
    lines = [
        line
        for path in sorted(DATA.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if '"prompt"' in line
    ]
    return [str(json.loads(line)["prompt"]) for line in lines[:: max(len(lines) // SAMPLE, 1)]]
