"""A disk that is full or damaged: one clear error, nothing acknowledged lost, no dead process."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kiki.errors import StoreError
from memory.journal import Journal
from tests.memory.parts import ALICE, aeon, episode, vector_of

TMPFS_MB = 120
LEFT_MB = 6
# In a process of its own: a mapped page without a block behind it would end it by a signal.
FILLS_THE_DISK = """
import sys, time
from pathlib import Path
from kiki.errors import StoreError
from tests.memory.parts import ALICE, aeon, episode, vector_of, words
disk = Path(sys.argv[1])
memory = aeon(disk / "memory")
memory.write(episode("first"), vector_of("first"))
assert memory.drain(20)
filler = disk / "filler"
free = (lambda: __import__("shutil").disk_usage(disk).free)
with filler.open("wb") as file:
    while free() > int(sys.argv[2]) << 20:
        file.write(b"x" * (1 << 18))
        file.flush()
acknowledged = []
try:
    for number in range(2000):
        text = f"fact {number}"
        one = episode(text, "y" * 20_000)
        memory.write(one, vector_of(text))
        acknowledged.append(one)
except StoreError as error:
    print(error)
deadline = time.monotonic() + 20
while memory.status().state != "degraded" and time.monotonic() < deadline:
    time.sleep(0.05)
print(memory.status().state)
filler.unlink()
memory.write(episode("last"), vector_of("last"))
assert memory.drain(60), memory.status()
print(memory.status().state, memory.status().lag)
assert [row.id for row in memory.episodes(ALICE, "c1")][1:-1] == [one.id for one in acknowledged]
text = acknowledged[-1].user_text
found = memory.recall(ALICE, text, vector_of(text), budget_tokens=10**6, count_tokens=words)
assert acknowledged[-1].id in [one.episode.id for one in found.episodes]
memory.close()
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "kiki-test", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_all_goes_on_when_there_is_room(small_disk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(small_disk), str(LEFT_MB)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    full, then, later = done.stdout.splitlines()
    assert full == (
        f"The disk is full: {small_disk}/memory/journal.sqlite can't grow. Free some space."
    )
    assert then == "degraded"
    assert later == "ok 0"


def test_a_write_that_the_system_refuses_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from kiki.errors import StoreError
from memory.journal import Journal
from tests.memory.parts import episode
journal = Journal(Path(sys.argv[1]), embedding_id="seeded")
try:
    while True:
        one = episode("x" * 50_000)
        journal.append(one)
        print(one.id, flush=True)
except StoreError as error:
    print("refused:", error)
"""

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        preexec_fn=no_large_files,
    )
    *ids, refused = done.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert "journal.sqlite can't" in refused
    journal = Journal(tmp_path, embedding_id="seeded")
    assert [one.id for one in journal.episodes(ALICE, "c1")] == ids
    journal.close()


def test_a_damaged_page_of_the_journal_is_said_with_what_to_do(tmp_path: Path) -> None:
    memory = aeon(tmp_path)
    for number in range(200):
        memory.write(episode("x" * 500, id=f"e{number}"), vector_of("x"))
    memory.close()
    file = tmp_path / "journal.sqlite"
    content = bytearray(file.read_bytes())
    for start in range(8 * 4096, len(content), 4096):
        content[start : start + 4096] = b"\xa5" * 4096
    file.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged") as found:
        read_all(tmp_path)
    assert str(file) in str(found.value)
    assert "Restore the file from a backup" in str(found.value)


def read_all(folder: Path) -> None:
    journal = Journal(folder, embedding_id="seeded")
    try:
        journal.rows_after(0, 1000)
    finally:
        journal.close()
