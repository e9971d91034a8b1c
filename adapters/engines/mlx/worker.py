"""The thread that owns the model: MLX's arrays and streams belong to the thread that made them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from adapters.engines.mlx.config import MlxConfig
from adapters.engines.swaps import Swaps
from kiki.errors import EngineUnavailableError

if TYPE_CHECKING:
    from adapters.adapter import Adapter
    from adapters.engines.base import GenerateRequest
    from adapters.engines.mlx.runner import Runner
    from adapters.engines.mlx.terms import Prepared

log = logging.getLogger("kiki.adapters")

INSTALL = "pip install 'kiki-gateway[mlx]'"
ENDED = "The engine has ended."
JOIN_SECONDS = 30.0

T = TypeVar("T")
R = TypeVar("R")


class Worker:
    """Loads the model in a thread of its own and runs rows there until it is stopped or fails.

    ``ended`` is called in that thread when it ends after a successful start, with the error that
    ended it, None after ``stop``.
    """

    def __init__(
        self,
        model: Path | str,
        config: MlxConfig,
        swaps: Swaps,
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._model = model
        self._config = config
        self._swaps = swaps
        self._on_end = ended
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._reading = ThreadPoolExecutor(1, "kiki-mlx-adapters")
        self._rendering = ThreadPoolExecutor(1, "kiki-mlx-prompts")

    def start(self) -> Future[Runner]:
        """Begin to load; the future fails with EngineUnavailableError."""
        loaded: Future[Runner] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(loaded,), name="kiki-mlx", daemon=True
        )
        self._thread.start()
        return loaded

    def post(self, command: Callable[[], None]) -> None:
        """Run ``command`` between two steps. Raises EngineUnavailableError once it has ended."""
        with self._lock:
            if not self._open:
                raise EngineUnavailableError(ENDED, fix="Try again shortly.")
            self._commands.put(command)

    async def read(self, function: Callable[[Adapter], Prepared], adapter: Adapter) -> Prepared:
        """Run what reads adapters from disk. Raises EngineUnavailableError once it has ended."""
        return await asyncio.wrap_future(_submit(self._reading, function, adapter))

    async def render(self, function: Callable[[GenerateRequest], R], request: GenerateRequest) -> R:
        """Run what makes prompts. Raises EngineUnavailableError once it has ended."""
        return await asyncio.wrap_future(_submit(self._rendering, function, request))

    def stop(self) -> None:
        """End the thread after its current step, the rows in flight with an error."""
        with self._lock:
            if self._open:
                self._commands.put(self._stop)

    def join(self) -> None:
        """Wait for the thread to end, which a model that is still loading may delay."""
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self, loaded: Future[Runner]) -> None:
        loaded.set_running_or_notify_cancel()  # from here on nobody can cancel it
        try:
            runner = self._load()
        except Exception as error:
            self._close()
            loaded.set_exception(error)
            return
        loaded.set_result(runner)
        failure: Exception | None = None
        try:
            self._work(runner)
        except Exception as error:
            log.error("the MLX engine's thread ended", exc_info=error)
            failure = error
        self._close()
        runner.fail_all(EngineUnavailableError("The engine ended in the middle of the answer."))
        self._on_end(failure)

    def _load(self) -> Runner:
        try:
            from adapters.engines.mlx.runner import Runner
        except ImportError as error:
            raise EngineUnavailableError(
                f"The MLX engine can't be imported: {error}.", fix=f"Install it: {INSTALL}"
            ) from error
        return Runner(self._model, self._config, self.post, self._reading, self._swaps)

    def _work(self, runner: Runner) -> None:
        while not self._stopping:
            while not self._stopping and not (runner.busy and self._commands.empty()):
                self._commands.get()()
            if not self._stopping:
                runner.turn()

    def _close(self) -> None:
        """Take no more commands; run those that came, so that their rows end too."""
        with self._lock:
            self._open = False
        while not self._commands.empty():
            try:
                self._commands.get()()
            except Exception as error:
                log.error("a command failed at the end of the MLX engine", exc_info=error)
        # What waits there still runs: its caller would take a cancelled future for its own end.
        self._reading.shutdown(wait=False)
        self._rendering.shutdown(wait=False)


def _submit(pool: ThreadPoolExecutor, function: Callable[[T], R], argument: T) -> Future[R]:
    try:
        return pool.submit(function, argument)
    except RuntimeError as error:  # it was shut down
        raise EngineUnavailableError(ENDED, fix="Try again shortly.") from error
