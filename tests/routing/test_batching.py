from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.batching import ROWS, Batches
from routing.embedder import Embedder


class Held:
    """A model that counts its runs, the first of which waits until it is let go."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.running, self.go = threading.Event(), threading.Event()

    def compute(self, texts: list[str]) -> Sequence[np.ndarray]:
        self.runs.append(texts)
        self.running.set()
        self.go.wait(60)
        if "bad" in texts:
            raise ValueError("bad text")
        return [np.array([len(text)], np.float32) for text in texts]


def test_what_waits_runs_together_and_no_more_than_a_batch() -> None:
    model = Held()
    batches = Batches(model.compute)
    first = batches.submit(["alone"])
    model.running.wait(60)
    others = [batches.submit([f"text {number}"]) for number in range(ROWS + 5)]
    model.go.set()
    assert [float(future.result(60)[0][0]) for future in others] == [
        len(f"text {number}") for number in range(ROWS + 5)
    ]
    assert first.result(60)[0][0] == 5
    assert list(map(len, model.runs)) == [1, ROWS, 5]


def test_one_with_many_texts_does_not_hold_up_one_with_a_single_text() -> None:
    model = Held()
    batches = Batches(model.compute)
    bulk = batches.submit([f"bulk {number}" for number in range(5 * ROWS)])
    model.running.wait(60)
    single = batches.submit(["single"])
    model.go.set()
    single.result(60)
    bulk.result(60)
    assert "single" in model.runs[1]


def test_a_failed_run_fails_its_callers_alone() -> None:
    model = Held()
    batches = Batches(model.compute)
    first = batches.submit(["good"])
    model.running.wait(60)
    failing = batches.submit(["bad", *["more"] * ROWS])
    model.go.set()
    assert first.result(60)[0][0] == 4
    with pytest.raises(ValueError, match="bad text"):
        failing.result(60)
    assert batches.submit(["after"]).result(60)[0][0] == 5


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.text(max_size=9), min_size=1, max_size=40), max_size=8))
def test_every_caller_gets_its_texts_in_their_order(callers: list[list[str]]) -> None:
    model = Held()
    model.go.set()
    batches = Batches(model.compute)
    futures = [batches.submit(texts) for texts in callers]
    for texts, future in zip(callers, futures, strict=True):
        assert [int(vector[0]) for vector in future.result(60)] == list(map(len, texts))


def test_one_that_leaves_early_spoils_nothing_for_others(embedder: Embedder) -> None:
    left = embedder.submit(["somebody who left before the answer came"])
    left.cancel()
    assert embedder.embed(["somebody who stayed"]).shape == (1, 768)
