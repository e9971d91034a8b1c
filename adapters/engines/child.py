"""The life of an engine's child process: start, watch, restart with back-off, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.engines.base import EngineState
from kiki.errors import EngineUnavailableError

log = logging.getLogger("kiki.adapters")

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
LOOK_EVERY = 20.0
LONGEST_LINE = 65_536  # bytes
LAST_WORDS = 6  # lines of a failed start that its error repeats


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. ``label`` names it in logs and errors; ``loading`` is what it loads.

    ``handshake`` is awaited with each new process, whose stdin and stdout are pipes, and returns
    the server's address once it listens, or "" where the process ended before.
    """

    label: str
    loading: str
    command: Sequence[str]
    handshake: Callable[[asyncio.subprocess.Process], Awaitable[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """Keeps one server process alive.

    ``probe`` is awaited with the new address after each start; only when it returns True does the
    state become ``ready``. A process that dies is started again after 0.5 s, then 1, 2 ... 30 s.
    ``alive`` is awaited with the address every 20 s while it is ready: a process of which it is
    False hangs, and is killed.
    """

    def __init__(
        self,
        program: Program,
        probe: Callable[[str], Awaitable[bool]],
        *,
        alive: Callable[[str], Awaitable[bool]] | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        self._program = program
        self._probe = probe
        self._alive = alive
        self._start_timeout = start_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._log_reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)
        self._retry_at = 0.0
        self._stopped = False
        self.state: EngineState = "stopped"
        self.url = ""
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def retry_after(self) -> float:
        """Seconds until the next start is worth waiting for."""
        return max(1.0, self._retry_at - asyncio.get_running_loop().time())

    async def start(self) -> None:
        """Start and probe once, then watch. Raises EngineUnavailableError if that fails."""
        self._stopped = False
        await self._launch()
        self._watchers = [asyncio.create_task(self._watch(), name="engine-watcher")]
        if self._alive:
            looking = self._look(self._alive)
            self._watchers.append(asyncio.create_task(looking, name="engine-looker"))

    async def stop(self) -> None:
        """End the process; a start that is under way fails."""
        self._stopped = True
        for watcher in self._watchers:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        self._watchers = []
        await self._end_process()
        self.state = "stopped"

    async def _launch(self) -> None:
        self.state = "starting"
        try:
            async with asyncio.timeout(self._start_timeout):
                self._process = await asyncio.create_subprocess_exec(
                    *self._program.command,
                    env=os.environ | self._program.environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )
                self._check_running()
                self.url = await self._handshake(self._process)
                probed = await self._probe(self.url)
                self._check_running()
                if not probed:
                    raise EngineUnavailableError(
                        f"The {self._program.label} engine started but could not generate a token.",
                        fix="See the engine's lines in the log.",
                    )
        except EngineUnavailableError:
            await self._give_up()
            raise
        except TimeoutError as error:
            await self._give_up()
            raise EngineUnavailableError(
                f"The {self._program.label} engine did not start within "
                f"{self._start_timeout:.0f} s.",
                fix="See the engine's lines in the log; raise engine_start_timeout if it is slow.",
            ) from error
        except Exception as error:  # whatever it is, the restarts must go on
            await self._give_up()
            raise EngineUnavailableError(
                f"The {self._program.label} engine did not start: {error}."
            ) from error
        self.state = "ready"

    def _check_running(self) -> None:
        if self._stopped:
            raise EngineUnavailableError(f"The {self._program.label} engine was stopped.")

    async def _give_up(self) -> None:
        self.state = "down"
        await self._end_process()

    async def _handshake(self, process: asyncio.subprocess.Process) -> str:
        assert process.stderr
        log_reader = asyncio.create_task(self._read_log(process.stderr), name="engine-log")
        self._log_reader = log_reader
        url = await self._program.handshake(process)
        if not url:
            await log_reader
            raise EngineUnavailableError(
                f"The {self._program.label} engine ended while loading {self._program.loading}: "
                + (" | ".join(list(self._last_lines)[-LAST_WORDS:]) or "it said nothing"),
                fix="Check the model and adapter files with: kiki doctor",
            )
        return url

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        # In chunks: a line longer than the reader's limit must not end the reading, or the pipe
        # fills up and the engine with it.
        rest = b""
        while chunk := await stream.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._note(line)
        self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._last_lines.append(text)
            log.info("%s: %s", self._program.label, text)

    async def _watch(self) -> None:
        delay = FIRST_DELAY
        while True:
            assert self._process
            started = asyncio.get_running_loop().time()
            code = await self._process.wait()
            self.state = "down"
            log.error("the %s engine ended with code %s", self._program.label, code)
            if asyncio.get_running_loop().time() - started > 60:
                delay = FIRST_DELAY
            delay = await self._restart(delay)

    async def _look(self, alive: Callable[[str], Awaitable[bool]]) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            looked_at = self._process
            if self.state != "ready" or looked_at is None or await alive(self.url):
                continue
            if looked_at is self._process and looked_at.returncode is None:
                log.error("the %s engine hangs and is killed", self._program.label)
                looked_at.kill()

    async def _restart(self, delay: float) -> float:
        """Try until it is up; returns the delay to begin with the next time."""
        while True:
            self._retry_at = asyncio.get_running_loop().time() + delay
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            try:
                await self._launch()
            except EngineUnavailableError as error:
                log.error("restart failed: %s", error)
            else:
                self.restarts += 1
                label = self._program.label
                log.warning("the %s engine was restarted (%d so far)", label, self.restarts)
                return delay

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
        finally:  # whoever waits may be cancelled; the process must not be left
            if process.returncode is None:
                process.kill()
        await process.wait()
        if self._log_reader:
            await self._log_reader
