"""Rows that generate together, each with its own mix and sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import mlx.core as mx
from mlx_lm.generate import GenerationBatch
from mlx_lm.sample_utils import greedy_sampler

from adapters.engines.base import FinishReason
from adapters.engines.mlx.cache import KvCache
from adapters.engines.mlx.job import Setup
from adapters.engines.mlx.model import Base
from adapters.engines.mlx.prefill import Prefill
from adapters.engines.mlx.rows import Row
from adapters.engines.mlx.sampling import make_processors, make_sampler


class RowBatch(GenerationBatch):
    """mlx_lm's batch, which sets up its rows before every pass."""

    def __init__(self, base: Base, row: int, prefill: Prefill, single: bool) -> None:
        job = prefill.row.job
        self._slots = base.slots
        self._single = single
        self.setups: dict[int, Setup] = {row: job.setup}
        cache = prefill.cache if single else [layer.merge([layer]) for layer in prefill.cache]
        processors = make_processors(job.sampling, base.config.context_tokens)
        if job.prompt.grammar:
            processors.append(job.prompt.grammar)
        super().__init__(
            model=base.model,
            uids=[row],
            inputs=mx.array(job.prompt.tokens[-1:]),
            prompt_cache=cache,
            tokens=[job.prompt.tokens[:-1]],
            samplers=[make_sampler(job.sampling)],
            fallback_sampler=greedy_sampler,
            logits_processors=[processors],
            stop_sequences=[base.ends],
            max_tokens=[job.max_tokens],
        )

    def extend(self, batch: RowBatch) -> None:
        super().extend(batch)  # type: ignore[no-untyped-call]
        self.setups |= batch.setups

    def _step(self) -> tuple[list[int], list[mx.array]]:
        mixes, gains = zip(*(self.setups[row] for row in self.uids), strict=True)
        self._slots.use(mixes, gains)
        return super()._step()

    def extract_cache(self, idx: int) -> KvCache:
        cache = self.prompt_cache if self._single else super().extract_cache(idx)
        return list(cache)


@dataclass(frozen=True, slots=True)
class Token:
    """What one row got from a step; where it ended, all its ``tokens`` and its state after them."""

    row: Row
    token: int
    logprobs: mx.array
    finish: FinishReason | None
    cache: KvCache | None
    tokens: list[int] | None


class Batch:
    """The rows that generate now, in the order they joined."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._single = base.single()
        self._rows: dict[int, Row] = {}
        self._batch: RowBatch | None = None
        self._count = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self._rows.values())

    def begin(self, prefill: Prefill) -> RowBatch:
        """Compute a row's first token, alone."""
        self._count += 1
        return RowBatch(self._base, self._count, prefill, self._single)

    def join(self, begun: RowBatch, row: Row) -> None:
        """Let a row that has begun run with the others."""
        if self._batch is None:
            self._batch = begun
        else:
            self._batch.extend(begun)
        self._rows[begun.uids[0]] = row

    def step(self) -> list[Token]:
        """One token for each row; rows that ended are out of the batch."""
        if self._batch is None:
            return []
        tokens = []
        for response in self._batch.next():
            row = self._rows[response.uid]
            finish = cast("FinishReason | None", response.finish_reason)
            tokens.append(
                Token(
                    row,
                    response.token,
                    response.logprobs,
                    finish,
                    response.prompt_cache,
                    response.all_tokens,
                )
            )
            if finish:
                self._forget(response.uid)
        return tokens

    def state(self, row: Row) -> tuple[list[int], KvCache]:
        """The tokens of a row in the batch, and the model's state after them."""
        batch, place = self._place(row)
        return list(batch.tokens[place]), batch.extract_cache(place)

    def remove(self, row: Row) -> None:
        """Take a row out of the batch before its next step."""
        batch, place = self._place(row)
        number = batch.uids[place]
        batch.filter([other for other in range(len(batch)) if other != place])
        self._forget(number)

    def clear(self) -> None:
        """Drop every row and the state of the batch."""
        self._rows.clear()
        self._batch = None

    def _place(self, row: Row) -> tuple[RowBatch, int]:
        assert self._batch is not None
        number = next(number for number, each in self._rows.items() if each is row)
        return self._batch, self._batch.uids.index(number)

    def _forget(self, number: int) -> None:
        del self._rows[number]
        if not self._rows:
            self._batch = None
        elif self._batch is not None:
            del self._batch.setups[number]
