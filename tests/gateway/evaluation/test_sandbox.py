"""Code that a model wrote can do no harm, and can't pass without its tests."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.evaluation.sandbox import Limits, require_sandbox, run_program

QUICK = Limits(cpu_s=1, wall_s=3)
GUARDS = require_sandbox()
needs_files = pytest.mark.skipif(GUARDS.files == "none", reason="this kernel has no Landlock")
needs_network = pytest.mark.skipif(GUARDS.network == "none", reason="no namespaces are permitted")


def test_a_program_that_runs_to_its_end_passes():
    run = run_program("import math\nassert math.gcd(12, 18) == 6\nprint('done')", QUICK)
    assert run.passed
    assert run.output == "done\n"


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 == 2",
        "def f(:",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise KeyboardInterrupt",
    ],
)
def test_a_program_that_does_not_reach_its_end_fails(program: str):
    assert not run_program(program, QUICK).passed


def test_a_failure_says_where():
    run = run_program("x = 1\nassert x == 2, 'x is one'", QUICK)
    assert "line 2" in run.output
    assert "x is one" in run.output


def test_an_endless_loop_ends_by_its_processor_time():
    assert not run_program("while True: pass", QUICK).passed


def test_a_sleeper_ends_by_the_clock():
    run = run_program("import time; time.sleep(60)", Limits(wall_s=0.5))
    assert not run.passed
    assert "over 0.5 s" in run.output


def test_memory_is_limited():
    run = run_program("held = bytearray(2**30)", QUICK)
    assert not run.passed
    assert "MemoryError" in run.output


def test_a_fork_bomb_starts_nothing():
    run = run_program("import os\nwhile True: os.fork()", QUICK)
    assert not run.passed
    assert "BlockingIOError" in run.output


def test_no_thread_and_no_program_is_started():
    threads = "import threading\nthreading.Thread(target=print).start()"
    assert not run_program(threads, QUICK).passed
    assert not run_program("import subprocess\nsubprocess.run(['/bin/true'])", QUICK).passed


def test_a_file_of_its_own_is_limited_in_size():
    assert run_program("open('own', 'w').write('a' * 1000)", QUICK).passed
    assert not run_program("open('own', 'w').write('a' * 2**21)", QUICK).passed


def test_what_it_prints_is_limited():
    run = run_program("print('a' * 2**22)", QUICK)
    assert not run.passed
    assert len(run.output) <= 2000


@needs_files
def test_nothing_outside_its_folder_can_be_changed(tmp_path: Path):
    tmp_path.chmod(0o777)
    kept = tmp_path / "kept"
    kept.write_text("kept")
    kept.chmod(0o666)
    for change in (
        f"open({str(kept)!r}, 'w').write('gone')",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; os.rename({str(kept)!r}, {str(tmp_path / 'moved')!r})",
        f"import os; os.mkdir({str(tmp_path / 'made')!r})",
    ):
        run = run_program(change, QUICK)
        assert not run.passed, change
        assert "PermissionError" in run.output or "Errno" in run.output
    assert kept.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [kept]


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@needs_network
def test_the_network_is_out_of_reach(listener: int):
    run = run_program(
        f"import socket; socket.create_connection(('127.0.0.1', {listener}), 2)", QUICK
    )
    assert not run.passed
    assert "Error" in run.output


@pytest.mark.skipif(GUARDS.processes != "namespace", reason="no namespaces are permitted")
def test_a_program_that_leaves_its_group_is_killed_too():
    marker = "kiki-sandbox-outlives"
    run = run_program(
        f"import os, time; os.setsid(); time.sleep(60)  # {marker}", Limits(wall_s=0.5)
    )
    assert not run.passed
    caged = [
        line
        for pid in Path("/proc").iterdir()
        if pid.name.isdigit()
        for line in [_command(pid)]
        if "caged.py" in line and sys.executable in line
    ]
    assert caged == []


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_runs_at_the_same_time_do_not_meet():
    results: list[bool] = []

    def run(number: int) -> None:
        program = f"open('same', 'w').write('{number}')\nassert open('same').read() == '{number}'"
        results.append(run_program(program, QUICK).passed)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
