"""A Qdrant that is down, slow or failing: turns go on, and everything arrives after."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kiki.errors import StoreError, StoreUnavailableError, UnknownMemoryError
from memory import Aeon, Episode, Owner
from memory.atlas import VectorPoint
from memory.atlas_qdrant import QdrantAtlas
from memory.remote import Limits, LoopThread
from memory.stores import Stores
from tests.memory.parts import ALICE, embed, episode, unit_vectors, vector_of, words
from tests.memory.qdrant_upstream import SLOW_S, Upstream, running

WAIT_S = 60


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as made:
        yield made


def open_memory(folder: Path, url: str, limits: Limits) -> Aeon:
    made = Aeon(
        folder,
        embedding_id="seeded",
        embed=embed,
        stores=Stores(vector="qdrant", qdrant_url=url, limits=limits),
    )
    made.open()
    return made


def remember(memory: Aeon, text: str) -> Episode:
    one = episode(text)
    assert memory.write(one, vector_of(text))
    return one


def recalled(memory: Aeon, text: str) -> list[Episode]:
    found = memory.recall(ALICE, text, vector_of(text), budget_tokens=500, count_tokens=words)
    return [one.episode for one in found.episodes]


def until_degraded(memory: Aeon) -> str:
    deadline = time.monotonic() + WAIT_S
    while memory.status().state != "degraded":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return str(memory.status().last_error)


def test_a_memory_starts_without_its_server_and_fills_it_when_it_comes(tmp_path: Path) -> None:
    with running() as gone:
        port = int(gone.url.rsplit(":", 1)[1])
    memory = open_memory(tmp_path, gone.url, Limits(5, 5))
    assert gone.url in until_degraded(memory)
    one = remember(memory, "My dog is called Rex.")
    with pytest.raises(StoreUnavailableError, match="atlas"):
        recalled(memory, one.user_text)
    with running(port) as back:
        assert memory.drain(WAIT_S)
        assert len(back.points) == 1
        assert recalled(memory, one.user_text) == [one]
        assert memory.status().state == "ok"
        memory.close()


@pytest.mark.parametrize("fault", ["down", "half"])
def test_a_server_that_fails_loses_nothing(tmp_path: Path, upstream: Upstream, fault: str) -> None:
    memory = open_memory(tmp_path, upstream.url, Limits(5, 5))
    first = remember(memory, "My dog is called Rex.")
    assert memory.drain(WAIT_S)
    upstream.fault = fault  # type: ignore[assignment]
    written = [remember(memory, f"My number {n} is lucky.") for n in range(20)]
    if fault == "down":
        assert "scripted" in until_degraded(memory) or "503" in until_degraded(memory)
        with pytest.raises(StoreUnavailableError):
            recalled(memory, first.user_text)
        upstream.fault = "none"
    assert memory.drain(WAIT_S)
    upstream.fault = "none"
    kept = sorted(point["payload"]["id"] for point in upstream.points.values())
    assert kept == sorted(one.id for one in [first, *written])
    assert first in recalled(memory, first.user_text)
    memory.close()


def test_a_slow_server_costs_recall_its_limit(tmp_path: Path, upstream: Upstream) -> None:
    memory = open_memory(tmp_path, upstream.url, Limits(read_s=0.1, write_s=SLOW_S * 10))
    upstream.fault = "slow"
    one = remember(memory, "My dog is called Rex.")
    with pytest.raises(StoreUnavailableError, match=r"didn't answer in 0\.1 s"):
        recalled(memory, one.user_text)
    upstream.fault = "none"
    assert memory.drain(WAIT_S)
    memory.close()


def test_a_refused_key_is_named_with_its_setting(upstream: Upstream) -> None:
    upstream.refuses = True
    with pytest.raises(StoreError, match=r"refuses the key.*qdrant_api_key"):
        QdrantAtlas(upstream.url, embedding_id="seeded", dimension=8)


def test_a_collection_that_is_not_kikis_is_refused(upstream: Upstream) -> None:
    upstream.collections["kiki"] = {"vectors": {"size": 8, "distance": "Dot"}, "metadata": None}
    with pytest.raises(StoreError, match=r"not made by kiki.*qdrant_collection"):
        QdrantAtlas(upstream.url, embedding_id="seeded", dimension=8)


def test_a_store_made_anew_by_another_gateway_is_filled_again(
    tmp_path: Path, upstream: Upstream
) -> None:
    memory = open_memory(tmp_path / "one", upstream.url, Limits(5, 5))
    first = remember(memory, "My dog is called Rex.")
    assert memory.drain(WAIT_S)
    other = open_memory(tmp_path / "two", upstream.url, Limits(5, 5))
    other.close()
    other.rebuild(lambda done, total: None)
    assert upstream.points == {}
    second = remember(memory, "My cat is called Tom.")
    deadline = time.monotonic() + WAIT_S
    while len(upstream.points) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {point["payload"]["id"] for point in upstream.points.values()} == {first.id, second.id}
    memory.close()


def test_gateways_with_a_journal_each_recall_and_forget_as_one(
    tmp_path: Path, upstream: Upstream
) -> None:
    one, two = (open_memory(tmp_path / name, upstream.url, Limits(5, 5)) for name in ("1", "2"))
    said = remember(one, "My dog is called Rex.")
    assert one.drain(WAIT_S)
    assert recalled(two, said.user_text) == [said]
    assert two.episodes(ALICE, said.conversation) == [said]
    assert two.drain(WAIT_S)
    assert len(upstream.points) == 1

    assert one.rights.delete(ALICE, [said.id]).counts.episodes == 1
    deadline = time.monotonic() + WAIT_S
    while upstream.points or two.episodes(ALICE, said.conversation):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for memory in (one, two):
        assert recalled(memory, said.user_text) == []
        memory.close()


def eventually(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_episode_that_comes_back_and_goes_again_goes_at_the_other_gateway_too(
    tmp_path: Path, upstream: Upstream
) -> None:
    one, two = (open_memory(tmp_path / name, upstream.url, Limits(5, 5)) for name in ("1", "2"))
    said = remember(one, "My dog is called Rex.")
    for _ in range(2):
        assert one.drain(WAIT_S)
        assert recalled(two, said.user_text) == [said]
        one.rights.delete(ALICE, [said.id])
        eventually(lambda: not two.episodes(ALICE, said.conversation))
        one.rights.keep([said])
    assert one.drain(WAIT_S)
    assert recalled(two, said.user_text) == [said]
    assert one.episodes(ALICE, said.conversation) == [said]
    assert len(upstream.points) == 1
    for memory in (one, two):
        memory.close()


def test_an_edit_reaches_the_other_gateways_copy(tmp_path: Path, upstream: Upstream) -> None:
    one, two = (open_memory(tmp_path / name, upstream.url, Limits(5, 5)) for name in ("1", "2"))
    said = remember(one, "My dog is called Rex.")
    assert one.drain(WAIT_S)
    assert recalled(two, said.user_text) == [said]
    assert two.drain(WAIT_S)
    new = one.rights.edit(ALICE, said.id, user_text="My dog is called Max.", answer_text=None)
    eventually(lambda: two.episodes(ALICE, said.conversation) == [new])
    assert one.episodes(ALICE, said.conversation) == [new]
    assert two.drain(WAIT_S)
    for memory in (one, two):
        assert recalled(memory, new.user_text) == [new]
        memory.close()
    (point,) = upstream.points.values()
    assert "Max" in point["payload"]["record"]


def test_a_copy_of_what_was_deleted_here_is_not_brought_in_again(
    tmp_path: Path, upstream: Upstream
) -> None:
    memory = open_memory(tmp_path, upstream.url, Limits(5, 5))
    said = remember(memory, "My dog is called Rex.")
    assert memory.drain(WAIT_S)
    (point,) = upstream.points.items()
    memory.rights.delete(ALICE, [said.id])
    upstream.points.update([point])
    assert recalled(memory, said.user_text) == []
    assert memory.episodes(ALICE, said.conversation) == []
    memory.close()


def test_a_collection_of_an_older_kiki_is_refused_with_the_command(upstream: Upstream) -> None:
    meta = {"embedding": "seeded", "dimension": 8, "generation": "g"}
    vectors = {"size": 8, "distance": "Dot"}
    upstream.collections["kiki"] = {"vectors": vectors, "metadata": meta}
    with pytest.raises(StoreError, match=r"format 1.*kiki memory rebuild"):
        QdrantAtlas(upstream.url, embedding_id="seeded", dimension=8)
    QdrantAtlas(upstream.url, embedding_id="seeded", dimension=8, anew=True).close()


def test_what_another_gateway_wrote_can_be_deleted_by_its_owner_alone(
    tmp_path: Path, upstream: Upstream
) -> None:
    one, two = (open_memory(tmp_path / name, upstream.url, Limits(5, 5)) for name in ("1", "2"))
    said = [remember(one, f"My dog is called Rex {number}.") for number in range(4)]
    assert one.drain(WAIT_S)
    with pytest.raises(UnknownMemoryError):
        two.rights.delete(Owner("acme", "mallory"), [said[0].id])
    assert two.rights.delete(ALICE, [said[0].id]).counts.episodes == 1
    erased = two.rights.delete_all([ALICE])
    assert erased.counts.episodes == 3
    assert erased.followed
    assert upstream.points == {}
    deadline = time.monotonic() + WAIT_S
    while one.episodes(ALICE, said[0].conversation):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for memory in (one, two):
        memory.close()


def test_a_memory_starts_without_its_neo4j_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    limits = Limits(1, 2)
    stores = Stores(graph="neo4j", neo4j_uri=f"bolt://127.0.0.1:{port}", limits=limits)
    memory = Aeon(tmp_path, embedding_id="seeded", embed=embed, stores=stores)
    memory.open()
    one = remember(memory, "My dog is called Rex.")
    assert f"127.0.0.1:{port}" in until_degraded(memory)
    assert memory.episodes(ALICE, one.conversation) == [one]
    with pytest.raises(StoreUnavailableError, match="trace"):
        recalled(memory, one.user_text)
    memory.close()


def test_a_neo4j_that_never_answers_costs_its_limit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"bolt://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError):
            Stores(graph="neo4j", neo4j_uri=uri, limits=Limits(0.2, 0.5)).open_graph(tmp_path)


def test_a_thousand_tenants_share_a_server_without_a_hit_across(upstream: Upstream) -> None:
    atlas = QdrantAtlas(upstream.url, embedding_id="seeded", dimension=8, limits=Limits(60, 60))
    vector = unit_vectors(1, dimension=8)[0]
    owners = [Owner(f"tenant-{n}", "user") for n in range(1000)]
    atlas.upsert([VectorPoint(f"p{n}", owner, vector) for n, owner in enumerate(owners)])
    for n in range(0, 1000, 100):
        assert [hit.id for hit in atlas.search(owners[n], vector, 9)] == [f"p{n}"]
    atlas.close()


def test_a_call_that_takes_too_long_is_cut_off_and_named() -> None:
    loop = LoopThread("slow store")
    with pytest.raises(StoreUnavailableError, match=r"slow store didn't answer in 0\.01 s"):
        loop.run(asyncio.sleep(60), 0.01)
    loop.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        loop.run(asyncio.sleep(0), 1)


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"graph_store = neo4j.*kiki-gateway\[neo4j\]"):
        Stores(graph="neo4j").check()
    with pytest.raises(StoreError, match=r"vector_store = qdrant.*kiki-gateway\[qdrant\]"):
        Stores(vector="qdrant").check()
    Stores().check()
