"""Micro-batches: what waits while the model runs goes into its next run together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

ROWS = 32
CHARACTERS = 4096
"""Of a batch, about: some hundred milliseconds of work, which is what a newcomer may wait."""

Vector = NDArray[np.float32]
Compute = Callable[[list[str]], Sequence[Vector]]


class _Job:
    """One caller's texts; `rows` fills up batch by batch."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.rows: list[Vector] = []
        self.taken = 0
        self.future: Future[list[Vector]] = Future()


class Batches:
    """Runs `compute` on one batch at a time, in a thread that lives while there is work.

    A text that comes alone starts at once. Callers take turns text by text, so that one with
    thousands doesn't hold up one with a single text.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._working = False

    def submit(self, texts: Sequence[str]) -> Future[list[Vector]]:
        """A vector for each of the texts, at least one; fails with what `compute` raised."""
        job = _Job(texts)
        with self._lock:
            self._jobs.append(job)
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="kiki-embed", daemon=True).start()
        return job.future

    def _work(self) -> None:
        while batch := self._take():
            try:
                vectors = self._compute([text for _, text in batch])
            except Exception as error:
                self._fail({id(job): job for job, _ in batch}, error)
                continue
            for (job, _), vector in zip(batch, vectors, strict=True):
                job.rows.append(vector)
                if len(job.rows) == len(job.texts):
                    job.future.set_result(job.rows)

    def _take(self) -> list[tuple[_Job, str]]:
        """The next batch, one text of each caller in turn; none ends the thread."""
        batch: list[tuple[_Job, str]] = []
        characters = 0
        with self._lock:
            while self._jobs and len(batch) < ROWS and characters < CHARACTERS:
                job = self._jobs.popleft()
                text = job.texts[job.taken]
                batch.append((job, text))
                characters += len(text)
                job.taken += 1
                if job.taken < len(job.texts):
                    self._jobs.append(job)
            self._working = bool(batch)
        return batch

    def _fail(self, jobs: dict[int, _Job], error: Exception) -> None:
        with self._lock:
            self._jobs = deque(job for job in self._jobs if id(job) not in jobs)
        for job in jobs.values():
            job.future.set_exception(error)
