"""What breaks, and what must hold: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kiki.errors import StoreLockedError, StoreUnavailableError
from memory import Aeon, Episode, Owner, Recollection
from memory.atlas_edge import EdgeAtlas
from memory.fact_log import Learnt
from memory.journal import Journal
from memory.projector import LONGEST_PAUSE_S, pause_after
from memory.sleep import SleepSettings
from memory.trace_sqlite import SqliteTrace
from tests.memory.parts import ALICE, START, aeon, episode, vector_of, words

ROUNDS = int(os.environ.get("KIKI_TEST_ROUNDS", "3"))
"""How often a process is killed."""
WRITER = """
import sys
from pathlib import Path
from tests.memory.parts import aeon, episode, vector_of
memory = aeon(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**9):
    text = f"fact {number}"
    memory.write(episode(text, id=f"e{number:09d}", turn=number), vector_of(text))
    print(number, flush=True)
"""

SLEEPER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from memory.sleep import SleepSettings
from tests.memory.parts import aeon
memory = aeon(Path(sys.argv[1]))
print("asleep", flush=True)
memory.knowledge.sleep(SleepSettings())
print("awake", flush=True)
"""


def recall(memory: Aeon, text: str) -> Recollection:
    return memory.recall(ALICE, text, vector_of(text), budget_tokens=500, count_tokens=words)


def remember(memory: Aeon, text: str, **changes: Any) -> Episode:
    one = episode(text, **changes)
    assert memory.write(one, vector_of(text))
    return one


def test_kill_9_at_a_random_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for _ in range(ROUNDS):
        start = acknowledged[-1] + 1000 if acknowledged else 0
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as writer:
            assert writer.stdout is not None
            acknowledged.append(int(writer.stdout.readline()))
            time.sleep(random.uniform(0, 1.0))
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().splitlines(keepends=True)
            acknowledged += [int(line) for line in lines if line.endswith("\n")]
    memory = aeon(tmp_path)
    assert memory.drain(60)
    kept = [one.id for one in memory.episodes(ALICE, "c1")]
    assert {f"e{number:09d}" for number in acknowledged} <= set(kept)
    assert len(kept) == len(set(kept)) == memory.status().episodes
    assert recall(memory, f"fact {acknowledged[-1]}").episodes[0].episode.turn == acknowledged[-1]
    memory.close()
    for store in (
        EdgeAtlas(tmp_path / "atlas", embedding_id="seeded", dimension=768),
        SqliteTrace(tmp_path / "trace"),
    ):
        assert store.count() == len(kept)
        store.close()


def test_kill_9_in_sleep_leaves_no_episode_gone_without_its_summary(tmp_path: Path) -> None:
    groups, size = 40, 4
    memory = aeon(tmp_path)
    said = [
        episode(
            f"About {group}.", turn=number, created=START + timedelta(days=group, minutes=number)
        )
        for group in range(groups)
        for number in range(size)
    ]
    for one in said:
        memory.write(one, vector_of(one.user_text))
    assert memory.drain(60)
    memory._parts()[0].facts.learn(Learnt(), up_to=len(said), now=START)
    memory.close()
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, "-c", SLEEPER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as sleeper:
            assert sleeper.stdout is not None
            assert sleeper.stdout.readline() == "asleep\n"
            time.sleep(random.uniform(0, 0.5))
            sleeper.send_signal(signal.SIGKILL)
    memory = aeon(tmp_path)
    while memory.knowledge.sleep(SleepSettings()).owners:
        pass
    covered = [id_ for summary in memory.rights.summaries(ALICE) for id_ in summary.members]
    left = {one.id for one in memory.episodes(ALICE, "c1")}
    assert sorted(covered) == sorted(one.id for one in said)
    assert left < set(covered)
    assert all(one.settle(60) for one in memory._parts()[1:])
    assert memory._parts()[1].store().count() == memory._parts()[2].store().count() == len(left)
    memory.close()


@pytest.mark.parametrize(
    ("store", "method"), [(EdgeAtlas, "upsert"), (EdgeAtlas, "flush"), (SqliteTrace, "write")]
)
def test_a_store_that_fails_and_comes_back_gets_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: type, method: str
) -> None:
    memory = aeon(tmp_path)
    first = remember(memory, "My dog is called Rex.")
    assert memory.drain(20)

    def down(*arguments: object) -> None:
        raise StoreUnavailableError("the store is down")

    with monkeypatch.context() as fault:
        fault.setattr(store, method, down)
        second = remember(memory, "My cat is called Tom.")
        assert not memory.drain(0.3)
        deadline = time.monotonic() + 20
        while memory.status().state != "degraded" and time.monotonic() < deadline:
            time.sleep(0.02)
        status = memory.status()
        assert status.state == "degraded"
        assert status.lag == 1
        assert "the store is down" in str(status.last_error)
        assert recall(memory, "My cat is called Tom.").episodes[0].episode == second
    assert memory.drain(20)
    status = memory.status()
    assert (status.state, status.lag, status.last_error) == ("ok", 0, None)
    assert recall(memory, "My dog is called Rex.").episodes[0].episode == first
    memory.close()


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_stores_that_fail_half_the_calls_or_are_slow_get_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    calls: Counter[str] = Counter()

    def ailing(store: type, method: str) -> None:
        real = getattr(store, method)

        def call(self: object, *arguments: object) -> object:
            calls[method] += 1
            time.sleep(delay)
            if not delay and calls[method] % 2:
                raise StoreUnavailableError("the store is down")
            return real(self, *arguments)

        monkeypatch.setattr(store, method, call)

    monkeypatch.setattr("memory.projector.FIRST_PAUSE_S", 0.01)
    for method in ("upsert", "flush", "search"):
        ailing(EdgeAtlas, method)
    for method in ("write", "search_text"):
        ailing(SqliteTrace, method)
    memory = aeon(tmp_path)
    said = [remember(memory, f"fact {number} of Rex", turn=number) for number in range(200)]
    assert memory.drain(60)
    monkeypatch.undo()
    assert memory.status().state == "ok"
    assert memory.episodes(ALICE, "c1") == said
    assert recall(memory, said[77].user_text).episodes[0].episode == said[77]
    memory.close()
    atlas = EdgeAtlas(tmp_path / "atlas", embedding_id="seeded", dimension=768)
    trace = SqliteTrace(tmp_path / "trace")
    assert atlas.count() == trace.count() == len(said)
    middle = [one.id for one in said[95:106] if one is not said[100]]
    assert trace.around(ALICE, said[100].id, 5) == middle
    atlas.close()
    trace.close()


def test_a_thousand_tenants_who_write_at_once_never_see_each_other(tmp_path: Path) -> None:
    memory = aeon(tmp_path)
    owners = [Owner(f"tenant {number // 2}", f"user {number % 2}") for number in range(1000)]
    texts = ["The key is under the mat.", "Rex likes the park."]

    def write(turn: int, owner: Owner) -> None:
        text = texts[turn]
        one = episode(text, owner.tenant, tenant=owner.tenant, user=owner.user, turn=turn)
        memory.write(one, vector_of(text))

    with ThreadPoolExecutor(4) as pool:
        for turn in range(2):
            list(pool.map(partial(write, turn), owners))
    assert memory.drain(120)
    for owner in owners:
        for text in texts:
            found = memory.search(owner, text, vector_of(text), limit=10)
            assert {hit.episode.owner for hit in found} == {owner}
            assert {hit.episode.user_text for hit in found} == set(texts)
        assert len(memory.rights.page(owner, 10)) == 2
    assert len(memory.rights.users("tenant 7")) == 2
    memory.close()


def test_a_search_that_fails_is_named_and_writes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*arguments: object) -> None:
        raise StoreUnavailableError("the store is down")

    memory = aeon(tmp_path)
    monkeypatch.setattr(EdgeAtlas, "search", down)
    one = remember(memory, "My dog is called Rex.")
    with pytest.raises(StoreUnavailableError, match="down"):
        recall(memory, "dog")
    monkeypatch.undo()
    assert recall(memory, "My dog is called Rex.").episodes[0].episode == one
    memory.close()


@pytest.mark.parametrize("victim", ["atlas/shard/edge_config.json", "trace/trace.sqlite"])
def test_a_damaged_store_degrades_until_it_is_rebuilt(tmp_path: Path, victim: str) -> None:
    first = aeon(tmp_path)
    old = remember(first, "My dog is called Rex.")
    assert first.drain(20)
    first.close()
    (tmp_path / victim).write_bytes(b"\xff no such format " * 300)

    second = aeon(tmp_path)
    new = remember(second, "My cat is called Tom.")
    status = second.status()
    assert (status.state, status.episodes) == ("degraded", 2)
    assert "kiki memory rebuild" in str(status.last_error)
    with pytest.raises(StoreUnavailableError):
        recall(second, "dog")
    second.close()

    second.rebuild(lambda done, total: None)
    second.open()
    assert second.status().state == "ok"
    for one in (old, new):
        assert recall(second, one.user_text).episodes[0].episode == one
    second.close()


def test_an_embedder_that_fails_is_tried_again(tmp_path: Path) -> None:
    calls = 0

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("no embedder yet")
        return np.stack([vector_of(text) for text in texts])

    memory = aeon(tmp_path, embed=embed)
    one = episode("My dog is called Rex.")
    memory.write(one, None)
    assert memory.drain(20)
    assert calls == 3
    assert recall(memory, one.user_text).episodes[0].episode == one
    memory.close()


def test_a_second_memory_on_the_folder_is_refused(tmp_path: Path) -> None:
    memory = aeon(tmp_path)
    with pytest.raises(StoreLockedError, match=str(os.getpid())):
        aeon(tmp_path)
    memory.close()


def test_rows_written_while_nobody_projects_arrive_at_the_next_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, embedding_id="seeded")
    one = episode("My dog is called Rex.")
    journal.append(one, vector=vector_of(one.user_text))
    journal.close()
    memory = aeon(tmp_path)
    assert memory.drain(20)
    assert recall(memory, one.user_text).episodes[0].episode == one
    memory.close()


def test_many_threads_write_and_recall_at_once(tmp_path: Path) -> None:
    memory = aeon(tmp_path)
    failures: list[str] = []

    def work(worker: int) -> None:
        for number in range(15):
            text = f"worker{worker} remembers number{number}"
            one = remember(memory, text)
            found = [hit.episode.id for hit in recall(memory, text).episodes]
            if one.id not in found:
                failures.append(text)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert memory.drain(30)
    assert memory.status().episodes == 60
    memory.close()


@pytest.mark.parametrize("failures", [1, 2, 100, 5000, 10**9])
def test_a_store_that_is_down_for_ever_is_tried_for_ever(failures: int) -> None:
    assert 0 < pause_after(failures) <= LONGEST_PAUSE_S
    assert pause_after(failures) <= pause_after(failures + 1)
