"""What the memory costs on this machine: `kiki bench` calls `measure`."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory.aeon import Aeon
from memory.episode import Episode, Owner
from memory.journal import Journal

DIMENSION = 768
TOPICS = 200
VOCABULARY = 30_000
WORDS_A_TURN = 60
QUERIES = 200
WRITES = 500
ONE = Owner("bench", "one")


@dataclass(frozen=True, slots=True)
class MemoryMeasurement:
    """Times in milliseconds over ``queries`` recalls and ``writes`` acknowledged writes, the latter
    while both stores are brought up with them.

    The embedding is not in them. ``project_per_s`` is the rate of a rebuild, both stores together,
    while nothing else is asked. ``grown_mb`` is how much the process's peak memory rose while
    the episodes came in; ``queries_grown_mb`` over the second half of the queries (the first maps
    the store's pages in).
    """

    episodes: int
    queries: int
    writes: int
    ack_p50_ms: float
    recall_p50_ms: float
    recall_p95_ms: float
    project_per_s: float
    grown_mb: float
    queries_grown_mb: float


def measure(folder: Path, episodes: int = 10_000) -> MemoryMeasurement:
    """Fills a new memory in the empty ``folder`` with one owner's episodes (the worst case, more
    than `WRITES`) and asks it `QUERIES` questions. Vectors lie in clusters and words follow
    Zipf's law, as real turns do; both come from a fixed seed."""
    random = np.random.default_rng(0)
    texts, vectors = _turns(random, episodes + QUERIES)
    written = episodes - WRITES
    before = _peak_mb()
    _fill(folder, texts[:written], vectors)
    memory = Aeon(folder, embedding_id="bench", dimension=DIMENSION, embed=_not_needed)
    started = time.perf_counter()
    memory.rebuild(_unwatched)
    projected_s = time.perf_counter() - started
    memory.open()
    try:
        acks = [
            _timed_write(memory, _episode(number, texts[number]), vectors[number])
            for number in range(written, episodes)
        ]
        if not memory.drain(60):
            raise TimeoutError(f"The stores didn't catch up: {memory.status()}")
        filled = _peak_mb()
        asked = range(episodes, episodes + QUERIES)
        recalls = []
        for number in asked:
            if number == asked[QUERIES // 2]:
                halfway = _peak_mb()
            recalls.append(_timed_recall(memory, texts[number], vectors[number]))
        return MemoryMeasurement(
            episodes=episodes,
            queries=QUERIES,
            writes=len(acks),
            ack_p50_ms=statistics.median(acks),
            recall_p50_ms=statistics.median(recalls),
            recall_p95_ms=statistics.quantiles(recalls, n=20)[-1],
            project_per_s=written / projected_s,
            grown_mb=filled - before,
            queries_grown_mb=_peak_mb() - halfway,
        )
    finally:
        memory.close()


def _turns(random: np.random.Generator, count: int) -> tuple[list[str], NDArray[np.float32]]:
    chances = 1 / np.arange(1, VOCABULARY + 1)
    drawn = random.choice(VOCABULARY, (count, WORDS_A_TURN), p=chances / chances.sum())
    texts = [" ".join(f"word{word}" for word in turn) for turn in drawn]
    centres = random.standard_normal((TOPICS, DIMENSION)).astype(np.float32)
    vectors = centres[random.integers(0, TOPICS, count)]
    vectors += random.standard_normal((count, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return texts, vectors


def _fill(folder: Path, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    journal = Journal(folder, embedding_id="bench")
    for number, text in enumerate(texts):
        journal.append(_episode(number, text), vector=vectors[number])
    journal.close()


def _episode(number: int, text: str) -> Episode:
    half = len(text) // 2
    return Episode(
        id=f"bench-{number:09d}",
        tenant=ONE.tenant,
        user=ONE.user,
        conversation=f"conversation-{number // 10}",
        turn=number % 10,
        user_text=text[:half],
        answer_text=text[half:],
        domains=(),
        adapters=(),
        created=datetime.now(UTC),
    )


def _timed_write(memory: Aeon, episode: Episode, vector: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    memory.write(episode, vector)
    return (time.perf_counter() - started) * 1e3


def _timed_recall(memory: Aeon, text: str, vector: NDArray[np.float32]) -> float:
    question = " ".join(text.split()[:15])
    started = time.perf_counter()
    memory.recall(ONE, question, vector, budget_tokens=400, count_tokens=_words)
    return (time.perf_counter() - started) * 1e3


def _unwatched(done: int, total: int) -> None:
    """The rebuild's progress, which nobody reads here."""


def _words(text: str) -> int:
    return len(text.split())


def _not_needed(texts: Sequence[str]) -> NDArray[np.float32]:
    raise RuntimeError(f"{len(texts)} episodes came without their vectors")


def _peak_mb() -> float:
    """The process's peak resident memory; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
