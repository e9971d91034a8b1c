"""How a row's next token is chosen: greedily, or with random numbers of the row's own."""

from __future__ import annotations

import secrets

import mlx.core as mx
from mlx_lm.sample_utils import (
    LogitsProcessor,
    Sampler,
    apply_top_p,
    greedy_sampler,
    make_logits_processors,
)

from adapters.engines.base import Sampling


def make_sampler(sampling: Sampling) -> Sampler:
    """A function from log-probabilities (1, vocabulary) to a token (1,).

    Greedy rows share one function, which lets the batch choose for all of them at once.
    """
    if sampling.temperature <= 0 or sampling.top_p <= 0:
        return greedy_sampler
    return SeededSampler(sampling)


def make_processors(sampling: Sampling, context_tokens: int) -> list[LogitsProcessor]:
    """What changes a row's logits before a token is chosen; penalties see the prompt too."""
    return make_logits_processors(
        logit_bias=dict(sampling.logit_bias) or None,
        presence_penalty=sampling.presence_penalty or None,
        presence_context_size=context_tokens,
        frequency_penalty=sampling.frequency_penalty or None,
        frequency_context_size=context_tokens,
    )


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
