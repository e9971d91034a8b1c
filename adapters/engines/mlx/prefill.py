"""Computing a prompt, a piece at a time."""

from __future__ import annotations

import mlx.core as mx

from adapters.engines.mlx.cache import KvCache, PrefixCache, needs_boundary
from adapters.engines.mlx.model import Base
from adapters.engines.mlx.rows import Row


class Prefill:
    """The prompt of one row, computed a piece at a time.

    Always alone: a prompt's own mix needs no weights by row, nothing is padded, and a prompt is
    computed in the same pieces, to the same bits, whoever else is running.
    """

    def __init__(self, base: Base, prefixes: PrefixCache, row: Row, cache: KvCache, done: int):
        self.row = row
        self.cache = cache
        self._base = base
        self._prefixes = prefixes
        self._done = done

    def advance(self) -> bool:
        """Compute the next piece; True once only the last token is left."""
        job = self.row.job
        tokens, boundary = job.prompt.tokens, job.prompt.boundary
        last = len(tokens) - 1
        if self._done < last:
            end = min(self._done + self._base.config.prefill_tokens, last)
            if self._done < boundary < end:
                end = boundary
            self._base.slots.use((job.mix,))
            self._base.model(mx.array([tokens[self._done : end]]), cache=self.cache)
            mx.eval([layer.state for layer in self.cache])
            self._done = end
            if end == boundary and needs_boundary(self.cache):
                self._prefixes.keep_prompt(job.setup, tokens[:end], self.cache)
        return self._done >= last
