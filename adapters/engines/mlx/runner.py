"""What the model's thread does: admit rows, compute prompts piece by piece, step the batch."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
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
from adapters.engines.mlx.stored import is_bfloat16
from adapters.engines.mlx.terms import Prepared
from adapters.engines.mlx.waiting import Waiter, Waiting
from adapters.engines.swaps import Swaps
from adapters.folders import read_unchanged
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
    ``served`` maps keys to adapters; it is the caller's, to note what was checked and offered.
    """

    def __init__(
        self,
        model: Path | str,
        config: MlxConfig,
        post: Callable[[Command], None],
        reading: Executor,
        swaps: Swaps,
    ) -> None:
        self.limits = apply_limits(config)
        self._base = load_base(model, config)
        self._config = config
        self._post = post
        self._reading = reading
        self._swaps = swaps
        self.served: dict[str, Adapter] = {}
        self.prefixes = PrefixCache(config)
        self._batch = Batch(self._base)
        self.slots = 1 if self._base.single() else config.slots
        self._resident = Resident(self._base.slots, config.adapter_budget_bytes)
        self._waiting = Waiting(self._resident, self._read)
        self._prefills: deque[Prefill] = deque()
        self._steps = 0
        self._failures = 0
        self._failures_in_a_row = 0

    @property
    def busy(self) -> bool:
        """Whether ``turn`` has something to do without another command."""
        return bool(self._batch or self._prefills or (self._free and self._waiting.ready()))

    @property
    def stats(self) -> RunnerStats:
        """From any thread: numbers that may be one step old."""
        return RunnerStats(
            active_rows=len(self._batch) + len(self._prefills),
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
        bfloat16 = is_bfloat16(adapter)  # first: what is read next is held to the fingerprint
        return self._base.slots.prepare(read_unchanged(adapter), bfloat16=bfloat16)

    def offer(self, key: str, prepared: Prepared) -> None:
        """Serve an adapter; it is kept in memory if it fits beside those that are there."""
        self._resident.offer(key, prepared)

    def drop(self, key: str) -> None:
        """Forget an adapter that is no longer served, once no request wants it."""
        self._resident.drop(key)

    def want(self, keys: Iterable[str]) -> None:
        """Note the adapters of a request that was accepted, until ``unwant``."""
        self._resident.want(keys)

    def unwant(self, keys: Iterable[str]) -> None:
        """A request that wanted ``keys`` has ended."""
        self._resident.unwant(keys)

    def submit(self, job: Job) -> None:
        """Queue a row."""
        self._waiting.add(job)
        self._look_ahead()

    def cancel(self, job: Job) -> None:
        """Take a row out, wherever it is; nothing if it has ended."""
        self._waiting.remove(job)
        for prefill in [each for each in self._prefills if each.row.job is job]:
            self._prefills.remove(prefill)
            prefill.row.release()
        for row in [each for each in self._batch.rows if each.job is job]:
            self._batch.remove(row)
            row.release()
        self._look_ahead()

    def turn(self) -> None:
        """Admit a row, compute a piece of one prompt, and one token of every running row.

        Prompts take turns, so that a short one isn't behind all of a long one. A failure ends
        the rows it touches. Raises EngineError when failures don't end.
        """
        if self._free and (waiter := self._waiting.ready()):
            self._admit(waiter)
        if self._prefills:
            self._advance(self._prefills.popleft())
        if self._batch:
            self._step()
        self._look_ahead()

    def fail_all(self, error: Exception) -> None:
        """End every row: none will run any more."""
        while self._prefills:
            self._prefills.popleft().row.fail(error)
        self._fail_batch(error)
        for job in self._waiting.clear():
            job.emit(error)

    @property
    def _free(self) -> int:
        """Slots in which no row is."""
        return self.slots - len(self._batch) - len(self._prefills)

    def _look_ahead(self) -> None:
        self._waiting.look_ahead(self._free)

    def _read(self, key: str, adapter: Adapter) -> None:
        reading = self._reading.submit(self.check, adapter)
        reading.add_done_callback(partial(self._post_read, key))

    def _post_read(self, key: str, done: Future[Prepared]) -> None:
        try:
            self._post(lambda: self._take_read(key, done))
        except EngineUnavailableError:
            log.debug("adapter %s was read for an engine that has ended", key)

    def _take_read(self, key: str, done: Future[Prepared]) -> None:
        error = done.exception()
        if error is None:
            self._waiting.loaded(key, done.result())
        else:
            self._refuse(key, error)
        self._look_ahead()

    def _refuse(self, key: str, error: BaseException) -> None:
        """End the rows that waited for an adapter that can't be read."""
        name = key.partition("@")[0]
        told: KikiError = _failed(error, f"Adapter {name!r} can't be loaded")
        if self._resident.is_dropped(key):
            told = UnknownAdapterError(
                f"Adapter {name!r} was removed or replaced while the request was waiting, "
                "and its old files are gone.",
                param=f"kiki.adapters.{name}",
                fix="Ask again.",
            )
        else:
            log.error("adapter %s can't be loaded", name, exc_info=error)
        for job in self._waiting.failed(key):
            job.emit(told)

    def _admit(self, waiter: Waiter) -> None:
        lease = self._waiting.take(waiter)
        job = waiter.job
        began = time.perf_counter()
        self._base.slots.use((job.mix,))
        if waiter.load_s is not None:
            self._swaps.count("load", waiter.load_s)
        elif job.mix:
            self._swaps.count("bind", time.perf_counter() - began)
        prefix = self.prefixes.find(job.setup, job.prompt.tokens) if job.reuse else None
        done = prefix.tokens if prefix else 0
        row = Row(job, lease, self._base.tokenizer, done)
        cache = prefix.cache if prefix else self._base.new_cache()
        self._prefills.append(Prefill(self._base, self.prefixes, row, cache, done))

    def _advance(self, prefill: Prefill) -> None:
        try:
            if not prefill.advance():
                self._prefills.append(prefill)
                return
            begun = self._batch.begin(prefill)
        except Exception as error:
            prefill.row.fail(self._note(error))
            self._give_up_if_hopeless(error)
            return
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
            self.prefixes.keep_answer(token.row.job.setup, tokens, cache)
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


def _failed(error: BaseException, what: str) -> EngineError:
    if isinstance(error, EngineError):
        return error
    message = error.message if isinstance(error, KikiError) else f"{type(error).__name__}: {error}"
    return EngineError(f"{what}: {message}")
