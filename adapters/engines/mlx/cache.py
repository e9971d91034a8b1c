"""Prompts that were computed before, kept by setup: a cache never crosses mixes or gains."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import LRUPromptCache, can_trim_prompt_cache

from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.job import Setup

KvCache = list[Any]  # mlx_lm's: an object for each layer


@dataclass(frozen=True, slots=True)
class Prefix:
    """The state of the model after the first ``tokens`` tokens of a prompt, the caller's own."""

    cache: KvCache
    tokens: int


class PrefixCache:
    """The most recent prompts of each setup, with the model's state after them.

    The mix is over keys that name an adapter's version, so a changed adapter finds nothing of
    the old one. A state of plain attention is cut back to the part that two prompts share; the
    state of linear attention can't be, and serves only a prompt that begins with all of it.
    """

    def __init__(self, config: MlxConfig) -> None:
        self._entries = config.prefix_cache_entries
        self._config = config
        self.hits = 0
        self.reused_tokens = 0
        self.clear()

    def __len__(self) -> int:
        return len(self._lru)

    @property
    def nbytes(self) -> int:
        return int(self._lru.nbytes)

    def clear(self) -> None:
        self._lru = LRUPromptCache(self._entries, self._config.prefix_cache_bytes)

    def find(self, setup: Setup, tokens: list[int]) -> Prefix | None:
        """The longest kept prefix of ``tokens``, its last one left out: that one gives logits."""
        if not self._entries:
            return None
        cache, rest = self._lru.fetch_nearest_cache(setup, tokens[:-1])
        if cache is None or len(rest) >= len(tokens) - 1:
            return None
        self.hits += 1
        self.reused_tokens += (reused := len(tokens) - 1 - len(rest))
        return Prefix(cache, reused)

    def keep_prompt(self, setup: Setup, tokens: list[int], cache: KvCache) -> None:
        """Keep a copy of a prompt's state; the caller goes on with its own."""
        if self._entries:
            self._lru.insert_cache(setup, tokens, copy.deepcopy(cache), cache_type="user")

    def keep_answer(self, setup: Setup, tokens: list[int], cache: KvCache) -> None:
        """Keep the state at the end of an answer; the caller gives ``cache`` away."""
        if self._entries:
            # Not computed yet, it would hold on to the whole batch's state.
            mx.eval([layer.state for layer in cache])
            self._lru.insert_cache(setup, tokens, cache)


def needs_boundary(cache: KvCache) -> bool:
    """Whether a state like this serves only prompts that begin with all of it."""
    return not can_trim_prompt_cache(cache)
