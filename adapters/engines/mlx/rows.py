"""A running row: from its tokens to the deltas that its caller reads."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from adapters.engines.base import Delta, FinishReason, TokenLogprob, Usage
from adapters.engines.mlx.job import Job
from adapters.engines.mlx.resident import Lease
from adapters.engines.mlx.stopping import StopStrings
from kiki.errors import EngineError


class Row:
    """One row with its adapters held, from its prefill to its last token."""

    def __init__(self, job: Job, lease: Lease, tokenizer: Any, cached_tokens: int) -> None:
        self.job = job
        self._lease = lease
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer
        self._stop = StopStrings(job.sampling.stop)
        self._cached = cached_tokens
        self._generated = 0

    def take(self, token: int, logprobs: mx.array, finish: FinishReason | None) -> bool:
        """Send what ``token`` adds; True if it was the last. ``logprobs`` is (vocabulary,).

        A token with the finish reason ``stop`` is the model's end of the turn, and no text.
        Raises EngineError where the row's grammar gave up.
        """
        grammar = self.job.prompt.grammar
        if grammar is not None and grammar.error:
            raise EngineError(f"The answer left its JSON schema: {grammar.error}")
        self._generated += 1
        text, stopped = self._stop.feed(self._text(token, finish))
        if finish and not stopped:
            text += self._stop.rest()
        sampling = self.job.sampling
        wanted = (sampling.logprobs or sampling.top_logprobs > 0) and finish != "stop"
        entries = (self._entry(token, logprobs, sampling.top_logprobs),) if wanted else ()
        if text or entries:
            self.job.emit(Delta(self.job.row, text, entries))
        finish = "stop" if stopped else finish
        if finish:
            usage = Usage(len(self.job.prompt.tokens), self._generated, self._cached)
            self.job.emit(Delta(self.job.row, finish_reason=finish, usage=usage))
        return finish is not None

    def fail(self, error: Exception) -> None:
        """End the row with an error."""
        self.release()
        self.job.emit(error)

    def release(self) -> None:
        """Let go of the row's adapters."""
        self._lease.release()

    def _text(self, token: int, finish: FinishReason | None) -> str:
        if finish != "stop":
            self._detokenizer.add_token(token)
        if finish:
            self._detokenizer.finalize()
        return str(self._detokenizer.last_segment)

    def _entry(self, token: int, logprobs: mx.array, top: int) -> TokenLogprob:
        values = np.array(logprobs.astype(mx.float32), np.float64)
        # MLX sums a vocabulary in float32; on a CPU that is off by 1e-4.
        values -= np.log(np.exp(values).sum())
        likeliest = np.argpartition(-values, max(top - 1, 0))[:top]
        ranked = likeliest[np.argsort(-values[likeliest], kind="stable")]
        # What a grammar forbids has no finite logarithm, and no place in JSON.
        return TokenLogprob(
            self._name(token),
            float(values[token]),
            tuple((self._name(i), float(values[i])) for i in ranked if np.isfinite(values[i])),
        )

    def _name(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))
