"""Runs Python that a model wrote, in a process of its own with limits."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from kiki.errors import EvaluationError

CAGE = Path(__file__).with_name("caged.py")
SHOWN_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of CPU and by the clock, bytes of memory and of a file, open files.

    A program may start no process and no thread.
    """

    cpu_s: int = 5
    wall_s: float = 10.0
    memory: int = 512 * 2**20
    file_size: int = 2**20
    files: int = 32


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Guards:
    """What holds a program beside the limits, as this system permits.

    ``network``: namespace (none is reachable), landlock (TCP is refused), none. ``files``:
    landlock (only the temporary folder can be changed), none. ``processes``: namespace (none
    outlives the run), limits.
    """

    network: str
    files: str
    processes: str


@dataclass(frozen=True, slots=True)
class Run:
    """Whether the program ran to its end, the end of its output, and what held it."""

    passed: bool
    output: str
    guards: Guards | None


def run_program(program: str, limits: Limits = DEFAULT_LIMITS) -> Run:
    """Run ``program`` in an empty temporary folder, which goes with all that it started.

    It passes when it runs to its last line: not when it raises, exits, or is over a limit.
    """
    with tempfile.TemporaryDirectory(prefix="kiki-sandbox-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)  # root's programs run as nobody
        return _run(program, limits, Path(folder))


def require_sandbox() -> Guards:
    """What holds programs here. Raises EvaluationError where a right one doesn't even run."""
    run = run_program("import collections, functools, itertools, math, re, string, typing\n")
    if not run.passed or run.guards is None:
        raise EvaluationError(
            f"Programs don't run in the sandbox: {run.output.strip() or 'no output'}",
            fix="Use a Python whose library every user may read, or don't run as root.",
        )
    return run.guards


def _run(program: str, limits: Limits, folder: Path) -> Run:
    token = secrets.token_hex(16)
    spec = {
        "token": token,
        "cpu_s": limits.cpu_s,
        "memory": limits.memory,
        "file_size": limits.file_size,
        "files": limits.files,
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(CAGE)],
        cwd=folder,
        env={"PYTHONHASHSEED": "0", "HOME": str(folder), "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    timer = threading.Timer(limits.wall_s, _kill, [process])
    timer.start()
    try:
        assert process.stdin
        assert process.stdout
        with process.stdin as stdin:
            stdin.write(json.dumps(spec).encode() + b"\n" + program.encode())
        first = process.stdout.readline(1000)
        rest = process.stdout.read(len(token))
    except BrokenPipeError:
        first = rest = b""
    finally:
        timed_out = not timer.is_alive()
        timer.cancel()
        _kill(process)
        process.wait()
        if process.stdout:
            process.stdout.close()
    output = _shown(folder / "output")
    if timed_out:
        output += f"\n[over {limits.wall_s:g} s]"
    guards = Guards(**json.loads(first)) if first.endswith(b"\n") else None
    return Run(rest == token.encode(), output, guards)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole group; the process itself isn't waited for, so its number is still its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()


def _shown(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-SHOWN_CHARS:]
    except OSError:
        return ""
