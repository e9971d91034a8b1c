"""What the model's thread does: admit rows, compute prompts piece by piece, step the batch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx

from adapters.adapter import Adapter
from adapters.engines.mlx.batch import Batch, Token
from adapters.engines.mlx.cache import PrefixCache, needs_boundary
from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.job import Job
from adapters.engines.mlx.limits import apply_limits
from adapters.engines.mlx.model import load_base
from adapters.engines.mlx.prefill import Prefill
from adapters.engines.mlx.prompts import Prompts
from adapters.engines.mlx.resident import Resident, ResidentStats
from adapters.engines.mlx.rows import Row
from adapters.engines.mlx.terms import Prepared
from adapters.folders import read_unchanged
from adapters.lora import Lora
from kiki.errors import EngineError, EngineUnavailableError, KikiError, UnknownAdapterError

log = logging.getLogger("kiki.adapters")

# After so many failures without a token in between, the model is loaded anew.
MOST_FAILURES = 3
TIDY_EVERY = 256  # steps

Command = Callable[[], None]


@dataclass(frozen=True, slots=True)
class RunnerStats:
    """Rows now, and counts since the model was loaded. ``prefix_tokens`` were not computed."""

    active_rows: int
    waiting_rows: int
    failures: int
    prefix_entries: int
    prefix_bytes: int
    prefix_hits: int
    prefix_tokens: int
    adapters: ResidentStats


class Runner:
    """The rows of one loaded model. Everything but ``check`` is for the model's own thread.

    ``post`` runs a command in that thread, ``reading`` runs what reads adapters from disk.
    ``served`` maps keys to adapters, and may be replaced at any time by another thread.
    """

    def __init__(
        self,
        model: Path | str,
        config: MlxConfig,
        post: Callable[[Command], None],
        reading: Executor,
    ) -> None:
        self.limits = apply_limits(config)
        self._base = load_base(model, config)
        self._config = config
        self._post = post
        self._reading = reading
        self.served: dict[str, Adapter] = {}
        self.prefixes = PrefixCache(config)
        self._batch = Batch(self._base)
        self.slots = 1 if self._base.single() else config.slots
        self._resident = Resident(self._base.slots, config.adapter_budget_bytes, self._read)
        self._waiting: deque[Job] = deque()
        self._loading: set[str] = set()
        self._prefill: Prefill | None = None
        self._steps = 0
        self._failures = 0
        self._failures_in_a_row = 0

    @property
    def busy(self) -> bool:
        """Whether ``turn`` has something to do without another command."""
        return bool(self._batch) or self._prefill is not None or self._admissible()

    @property
    def stats(self) -> RunnerStats:
        """From any thread: numbers that may be one step old."""
        return RunnerStats(
            active_rows=len(self._batch) + (self._prefill is not None),
            waiting_rows=len(self._waiting),
            failures=self._failures,
            prefix_entries=len(self.prefixes),
            prefix_bytes=self.prefixes.nbytes,
            prefix_hits=self.prefixes.hits,
            prefix_tokens=self.prefixes.reused_tokens,
            adapters=self._resident.stats,
        )

    def prompts(self) -> Prompts:
        """What renders prompts for this model."""
        boundaries = self._config.prefix_cache_entries > 0 and needs_boundary(
            self._base.new_cache()
        )
        return Prompts(self._base.tokenizer, self._config.context_tokens, boundaries=boundaries)

    def check(self, adapter: Adapter) -> Prepared:
        """Read an adapter and hold it against the model. From any thread. Raises AdapterError."""
        return self._base.slots.prepare(read_unchanged(adapter))

    def offer(self, key: str, prepared: Prepared) -> None:
        """Keep an adapter in memory if it fits beside those that are there."""
        stats = self._resident.stats
        if stats.nbytes + prepared.nbytes <= stats.budget_bytes:
            self._resident.put(key, prepared)

    def drop(self, key: str) -> None:
        """Forget an adapter that is no longer served, once no row holds it."""
        self._resident.drop(key)

    def submit(self, job: Job) -> None:
        """Queue a row, and begin to read those of its adapters that aren't in memory."""
        self._waiting.append(job)
        for key in self._resident.missing(job.mix.names):
            if key not in self._loading and key in self.served:
                self._loading.add(key)
                reading = self._reading.submit(self.check, self.served[key])
                reading.add_done_callback(partial(self._post_loaded, key))

    def cancel(self, job: Job) -> None:
        """Take a row out, wherever it is; nothing if it has ended."""
        if job in self._waiting:
            self._waiting.remove(job)
        elif self._prefill is not None and self._prefill.row.job is job:
            self._prefill.row.release()
            self._prefill = None
        else:
            for row in self._batch.rows:
                if row.job is job:
                    self._batch.remove(row)
                    row.release()

    def turn(self) -> None:
        """Admit a row, compute a piece of its prompt, and one token of every running row.

        A failure ends the rows it touches. Raises EngineError when failures don't end.
        """
        if self._prefill is None and self._admissible():
            self._admit(self._waiting.popleft())
        if self._prefill is not None:
            self._advance(self._prefill)
        if self._batch:
            self._step()

    def fail_all(self, error: Exception) -> None:
        """End every row: none will run any more."""
        if self._prefill is not None:
            self._prefill.row.fail(error)
            self._prefill = None
        self._fail_batch(error)
        while self._waiting:
            self._waiting.popleft().emit(error)

    def _read(self, key: str) -> Lora:
        adapter = self.served.get(key)
        if adapter is None:
            name = key.partition("@")[0]
            raise UnknownAdapterError(
                f"Adapter {name!r} was removed or replaced while the request was waiting.",
                param=f"kiki.adapters.{name}",
                fix="Ask again.",
            )
        return read_unchanged(adapter)

    def _post_loaded(self, key: str, done: Future[Prepared]) -> None:
        try:
            self._post(lambda: self._loaded(key, done))
        except EngineUnavailableError:
            log.debug("adapter %s was read for an engine that has ended", key)

    def _loaded(self, key: str, done: Future[Prepared]) -> None:
        self._loading.discard(key)
        # An error is raised again, for the row that asks, when the row is admitted.
        if done.exception() is None and key in self.served:
            self._resident.put(key, done.result())

    def _admissible(self) -> bool:
        """Rows run in the order they came: one whose adapters are being read is waited for."""
        if not self._waiting or len(self._batch) >= self.slots:
            return False
        return self._loading.isdisjoint(self._waiting[0].mix.names)

    def _admit(self, job: Job) -> None:
        try:
            lease = self._resident.acquire(job.mix.names)
        except UnknownAdapterError as error:
            job.emit(error)
            return
        except Exception as error:
            log.error("an adapter can't be loaded", exc_info=error)
            job.emit(_failed(error, "An adapter can't be loaded"))
            return
        prefix = self.prefixes.find(job.mix, job.prompt.tokens) if job.reuse else None
        row = Row(job, lease, self._base.tokenizer, prefix.tokens if prefix else 0)
        cache = prefix.cache if prefix else self._base.new_cache()
        self._prefill = Prefill(
            self._base, self.prefixes, row, cache, prefix.tokens if prefix else 0
        )

    def _advance(self, prefill: Prefill) -> None:
        try:
            if not prefill.advance():
                return
            begun = self._batch.begin(prefill)
        except Exception as error:
            self._prefill = None
            prefill.row.fail(self._note(error))
            self._give_up_if_hopeless(error)
            return
        self._prefill = None
        try:
            self._batch.join(begun, prefill.row)
        except Exception as error:
            noted = self._note(error)
            prefill.row.fail(noted)
            self._fail_batch(noted)

    def _step(self) -> None:
        try:
            tokens = self._batch.step()
        except Exception as error:
            self._fail_batch(self._note(error))
            self._give_up_if_hopeless(error)
            return
        self._failures_in_a_row = 0
        self._steps += 1
        for token in tokens:
            self._deliver(token)
        if self._steps % TIDY_EVERY == 0:
            mx.clear_cache()

    def _deliver(self, token: Token) -> None:
        row = token.row
        try:
            if not row.take(token.token, token.logprobs, token.finish):
                return
            self._keep(token)
        except Exception as error:
            log.error("the engine failed on one answer", exc_info=error)
            row.fail(_failed(error, "The engine failed on this answer"))
        if token.finish is None:
            self._batch.remove(row)
        row.release()

    def _keep(self, token: Token) -> None:
        """Keep the state at the end of an answer for the next turn."""
        try:
            if token.cache is None or token.tokens is None:  # a stop string ended it
                tokens, cache = self._batch.state(token.row)
            else:
                tokens, cache = token.tokens, token.cache
            self.prefixes.keep_answer(token.row.job.mix, tokens, cache)
        except Exception as error:  # the answer is complete; the next turn computes its prompt
            self._note(error)

    def _fail_batch(self, error: Exception) -> None:
        for row in self._batch.rows:
            row.fail(error)
        self._batch.clear()

    def _note(self, error: Exception) -> EngineError:
        """Count a failure, and free what may have been in its way."""
        log.error("the MLX engine failed: %s", error, exc_info=error)
        self._failures += 1
        self._failures_in_a_row += 1
        self.prefixes.clear()
        mx.clear_cache()
        return _failed(error, "The engine failed")

    def _give_up_if_hopeless(self, error: Exception) -> None:
        if self._failures_in_a_row >= MOST_FAILURES:
            raise EngineError(f"{MOST_FAILURES} failures in a row; the last: {error}") from error


def _failed(error: Exception, what: str) -> EngineError:
    if isinstance(error, EngineError):
        return error
    message = error.message if isinstance(error, KikiError) else f"{type(error).__name__}: {error}"
    return EngineError(f"{what}: {message}")
