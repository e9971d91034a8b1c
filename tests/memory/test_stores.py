"""What is peculiar to the embedded stores; what every store does: tests/contract/."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.errors import StoreError
from memory import Owner
from memory.atlas import Removed, VectorPoint
from memory.atlas_edge import EdgeAtlas
from memory.trace_sqlite import SqliteTrace
from tests.memory.parts import ALICE, episode, unit_vectors

BOB = Owner("acme", "bob")


def open_atlas(folder: Path, dimension: int = 8) -> EdgeAtlas:
    return EdgeAtlas(folder / "atlas", embedding_id="seeded", dimension=dimension)


@pytest.fixture
def atlas(tmp_path: Path) -> Iterator[EdgeAtlas]:
    made = open_atlas(tmp_path)
    yield made
    made.close()


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[SqliteTrace]:
    made = SqliteTrace(tmp_path / "trace")
    yield made
    made.close()


def points(owner: Owner, count: int, seed: int = 0) -> list[VectorPoint]:
    vectors = unit_vectors(count, seed=seed, dimension=8)
    return [
        VectorPoint(f"{owner.tenant}-{owner.user}-{n}", owner, vector)
        for n, vector in enumerate(vectors)
    ]


def test_atlas_keeps_a_point_once_and_after_reopening(tmp_path: Path) -> None:
    stored = points(ALICE, 3)
    first = open_atlas(tmp_path)
    first.upsert(stored)
    first.upsert(stored)
    generation = first.generation
    first.flush()
    first.close()
    second = open_atlas(tmp_path)
    assert second.count(ALICE) == second.count() == 3
    assert second.generation == generation
    second.close()


@pytest.mark.parametrize("victim", ["atlas.json", "shard/edge_config.json"])
def test_a_damaged_atlas_is_refused_with_the_command(tmp_path: Path, victim: str) -> None:
    made = open_atlas(tmp_path)
    made.upsert(points(ALICE, 3))
    made.close()
    (tmp_path / "atlas" / victim).write_bytes(b"\xff\x00 no json")
    with pytest.raises(StoreError, match="kiki memory rebuild"):
        open_atlas(tmp_path)


def test_an_atlas_that_killed_its_opener_is_made_anew(tmp_path: Path) -> None:
    first = open_atlas(tmp_path)
    first.upsert(points(ALICE, 3))
    first.close()
    (tmp_path / "atlas" / "opening").touch()
    second = open_atlas(tmp_path)
    assert second.count() == 0
    assert second.generation != first.generation
    second.close()


def test_a_creation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "atlas" / "shard" / "segments").mkdir(parents=True)
    made = open_atlas(tmp_path)
    assert made.count() == 0
    assert json.loads((tmp_path / "atlas" / "atlas.json").read_text())["embedding"] == "seeded"
    made.close()


def test_an_atlas_of_an_older_format_is_made_anew(tmp_path: Path) -> None:
    first = open_atlas(tmp_path)
    first.upsert(points(ALICE, 3))
    first.close()
    meta = tmp_path / "atlas" / "atlas.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 1}))
    second = open_atlas(tmp_path)
    assert second.count() == 0
    assert second.generation != first.generation
    second.close()


def test_an_atlas_finds_what_a_full_comparison_finds(tmp_path: Path) -> None:
    """The scan reads 2-bit codes; what it scores by the vectors must hold the nearest."""
    atlas = open_atlas(tmp_path, dimension=768)
    vectors = unit_vectors(3000, seed=1)
    vectors[:1500] = vectors[:1500] * 0.5 + unit_vectors(1, seed=2)[0] * 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = [VectorPoint(f"p{n}", ALICE, vector) for n, vector in enumerate(vectors)]
    for start in range(0, len(stored), 500):
        atlas.upsert(stored[start : start + 500])
    atlas.delete([Removed(f"p{n}", ALICE, 0) for n in range(0, 3000, 10)])
    kept = [n for n in range(3000) if n % 10]
    found = wanted = 0
    for query in unit_vectors(20, seed=3) * 0.6 + unit_vectors(1, seed=2)[0] * 0.4:
        query /= np.linalg.norm(query)
        best = sorted(kept, key=lambda n: -float(vectors[n] @ query))[:24]
        hits = {hit.id for hit in atlas.search(ALICE, query, 24)}
        found += len(hits & {f"p{n}" for n in best})
        wanted += 24
    atlas.close()
    assert found / wanted >= 0.98


def test_searches_go_on_while_others_write_and_delete(tmp_path: Path) -> None:
    atlas = open_atlas(tmp_path)
    kept = points(ALICE, 200, seed=1)
    atlas.upsert(kept)
    stop = threading.Event()

    def churn() -> None:
        others = points(BOB, 64, seed=2)
        while not stop.is_set():
            atlas.upsert(others)
            atlas.flush()
            atlas.delete([Removed(one.id, BOB, 0) for one in others])

    with ThreadPoolExecutor(1) as pool:
        churned = pool.submit(churn)
        for point in kept:
            assert atlas.search(ALICE, point.vector, 1)[0].id == point.id
        stop.set()
        churned.result()
    assert atlas.count(ALICE) == 200
    atlas.close()


def test_a_trace_of_the_first_format_is_brought_up(tmp_path: Path) -> None:
    one = episode("Rex barks")
    first = SqliteTrace(tmp_path / "trace")
    first.write([one])
    first.close()
    with closing(sqlite3.connect(tmp_path / "trace" / "trace.sqlite")) as db:
        db.executescript("DROP TABLE fact; DROP TABLE summary; PRAGMA user_version=1")
    second = SqliteTrace(tmp_path / "trace")
    assert second.summaries_of(ALICE, [one.id]) == {}
    assert [hit.id for hit in second.search_text(ALICE, "Rex", 5)] == [one.id]
    second.close()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
owners = st.lists(st.tuples(names, names), min_size=2, max_size=12, unique=True)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs=owners, data=st.data())
def test_no_search_crosses_an_owner(
    atlas: EdgeAtlas, trace: SqliteTrace, pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    everyone = [Owner(*pair) for pair in pairs]
    writers = data.draw(st.lists(st.sampled_from(everyone), min_size=1, max_size=40))
    mine: dict[str, Owner] = {}
    vector = unit_vectors(1, dimension=8)[0]
    for owner in writers:
        one = episode("Rex met Ada Lovelace", tenant=owner.tenant, user=owner.user)
        mine[one.id] = owner
        trace.write([one])
        atlas.upsert([VectorPoint(one.id, owner, vector)])
    for owner in everyone:
        expected = {id_ for id_, whose in mine.items() if whose == owner}
        for hits in (
            atlas.search(owner, vector, 50),
            trace.search_text(owner, "Rex met", 50),
            trace.neighbours(owner, ["Ada Lovelace"], 50),
        ):
            assert {hit.id for hit in hits} & mine.keys() == expected
