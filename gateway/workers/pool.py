"""The parent of the workers."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event

from gateway.assets import ModelFiles
from gateway.settings import Settings
from gateway.supervision import notify
from gateway.workers.memory import SharedMemory
from gateway.workers.ready import Ready
from gateway.workers.worker import run
from kiki.errors import EngineUnavailableError, KikiError, SettingsError

log = logging.getLogger("kiki.gateway")

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
STEADY_S = 60.0
"""Seconds after which a worker's end is its first again."""
CHECK_S = 1.0


class Pool:
    """``settings.workers`` processes that take connections from one listening socket.

    The first owns the memory. One that ends is started again after 0.5 s, then 1, 2 ... 30 s.
    """

    def __init__(self, settings: Settings, files: ModelFiles, listener: socket.socket) -> None:
        check(settings)
        self._settings = settings
        self._files = files
        self._listener = listener
        self._context = get_context("spawn")
        self._key = secrets.token_bytes(32)
        self._workers: dict[int, BaseProcess] = {}
        self._heard: dict[int, connection.Connection] = {}
        self._delays: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._began: dict[int, float] = {}
        self._stopping = Event()

    def serve(self, on_ready: Callable[[Ready], None]) -> None:
        """Until SIGTERM or SIGINT, after which running requests finish. Raises KikiError when a
        worker can't start."""
        with tempfile.TemporaryDirectory(prefix="kiki-workers-") as folder:
            self._folder = Path(folder)
            metrics = self._folder / "metrics"
            metrics.mkdir()
            # prometheus_client reads it when it is imported, which the workers do.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
            try:
                started = [self._start(number) for number in range(self._settings.workers)]
                ready = [self._await_ready(*one) for one in started]
                on_ready(ready[0])
                notify("READY=1")
                self._watch()
            finally:
                notify("STOPPING=1")
                self._stop()

    def _start(self, number: int) -> tuple[BaseProcess, connection.Connection]:
        shared = SharedMemory(str(self._folder / "memory"), self._key, owner=number == 0)
        if shared.owner:
            Path(shared.address).unlink(missing_ok=True)
        heard, told = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=run,
            args=(self._settings, self._files, self._listener, shared, told),
            name=f"kiki worker {number}",
        )
        process.start()
        told.close()
        self._workers[number] = process
        self._heard[number] = heard  # one that is started again tells it to nobody, but has to
        self._began[number] = time.monotonic()
        return process, heard

    def _await_ready(self, process: BaseProcess, heard: connection.Connection) -> Ready:
        try:
            told = heard.recv()
        except EOFError:
            process.join()
            raise EngineUnavailableError(
                f"{process.name} ended with code {process.exitcode} before it was ready.",
                fix="See its lines in the log.",
            ) from None
        if isinstance(told, KikiError):
            raise told
        assert isinstance(told, Ready)
        return told

    def _watch(self) -> None:
        while not self._stopping.is_set():
            connection.wait([one.sentinel for one in self._workers.values()], CHECK_S)
            notify("WATCHDOG=1")
            if self._stopping.is_set():
                return
            for number, process in list(self._workers.items()):
                if not process.is_alive():
                    self._note_end(number, process)
            for number, due in list(self._due.items()):
                if time.monotonic() >= due:
                    del self._due[number]
                    self._start(number)

    def _note_end(self, number: int, process: BaseProcess) -> None:
        from prometheus_client import multiprocess

        del self._workers[number]
        assert process.pid
        multiprocess.mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        if time.monotonic() - self._began[number] > STEADY_S:
            self._delays.pop(number, None)
        delay = self._delays.get(number, FIRST_DELAY)
        self._delays[number] = min(delay * 2, LONGEST_DELAY)
        self._due[number] = time.monotonic() + delay
        log.error("%s ended with code %s; again in %g s", process.name, process.exitcode, delay)

    def _on_signal(self, number: int, frame: object) -> None:
        """The first lets requests finish; the second goes to workers that have had one."""
        if self._stopping.is_set():
            for process in self._workers.values():
                process.terminate()
        self._stopping.set()

    def _stop(self) -> None:
        """The owner of the memory last: the others write until their end."""
        self._stopping.set()
        others = [process for number, process in self._workers.items() if number]
        owner = [process for number, process in self._workers.items() if not number]
        for together in (others, owner):
            for process in together:
                process.terminate()
            for process in together:
                process.join()


def check(settings: Settings) -> None:
    """Raise SettingsError where several workers can't serve."""
    if not settings.vllm_urls:
        raise SettingsError(
            f"workers = {settings.workers}: an engine in this process, or its child, serves one "
            "gateway.",
            fix="Set workers = 1, or name running servers with vllm_urls.",
        )
