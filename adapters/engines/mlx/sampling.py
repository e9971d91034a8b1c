"""How a row's next token is chosen: greedily, or with random numbers of the row's own."""

from __future__ import annotations

import secrets

import mlx.core as mx
from mlx_lm.sample_utils import Sampler, apply_top_p, greedy_sampler

from adapters.engines.base import Sampling


def make_sampler(sampling: Sampling) -> Sampler:
    """A function from log-probabilities (1, vocabulary) to a token (1,).

    Greedy rows share one function, which lets the batch choose for all of them at once.
    """
    if sampling.temperature <= 0 or sampling.top_p <= 0:
        return greedy_sampler
    return SeededSampler(sampling)


class SeededSampler:
    """Draws with a key that only this row advances: its seed repeats whatever else is running."""

    def __init__(self, sampling: Sampling) -> None:
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self._key = mx.random.key(seed)
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p

    def __call__(self, logprobs: mx.array) -> mx.array:
        if self._top_p < 1:
            logprobs = apply_top_p(logprobs, self._top_p)
        self._key, key = mx.random.split(self._key)
        return mx.random.categorical(logprobs * (1 / self._temperature), key=key)
