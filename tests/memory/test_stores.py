"""Atlas and Trace, each alone: they find, they forget, and they never cross an owner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.errors import StoreError, StoreUnavailableError
from memory import Owner
from memory.atlas import VectorPoint
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


def test_atlas_finds_the_nearest_by_cosine(atlas: EdgeAtlas) -> None:
    stored = points(ALICE, 50)
    atlas.upsert(stored)
    query = stored[7].vector
    hits = atlas.search(ALICE, query, 5)
    expected = sorted(stored, key=lambda point: -float(point.vector @ query))[:5]
    assert [hit.id for hit in hits] == [point.id for point in expected]
    assert hits[0].score == pytest.approx(1.0, abs=2e-3)


def test_atlas_leaves_out_what_is_excluded_or_deleted(atlas: EdgeAtlas) -> None:
    stored = points(ALICE, 3)
    atlas.upsert(stored)
    atlas.delete([stored[1].id])
    found = {hit.id for hit in atlas.search(ALICE, stored[0].vector, 9, {stored[0].id})}
    assert found == {stored[2].id}
    assert atlas.count() == 2


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


def test_atlas_made_by_another_model_is_refused_with_the_command(tmp_path: Path) -> None:
    open_atlas(tmp_path).close()
    with pytest.raises(StoreError, match=r"seeded.*other.*kiki memory rebuild"):
        EdgeAtlas(tmp_path / "atlas", embedding_id="other", dimension=8)
    with pytest.raises(StoreError, match=r"8-d.*16-d"):
        open_atlas(tmp_path, dimension=16)


def test_atlas_names_a_wrong_dimension_and_a_closed_store(tmp_path: Path) -> None:
    made = open_atlas(tmp_path)
    with pytest.raises(StoreError, match="dim"):
        made.search(ALICE, np.ones(5, np.float32), 1)
    made.close()
    with pytest.raises(StoreUnavailableError):
        made.search(ALICE, np.ones(8, np.float32), 1)


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


def test_trace_finds_words_of_both_sides_across_forms_and_accents(trace: SqliteTrace) -> None:
    one = episode("Nous avons visité le musée à Angoulême", "It was opened in 1844.")
    trace.write([one, episode("Something else entirely")])
    for question in ("musee angouleme", "opening of 1844", "MUSÉE?"):
        assert [hit.id for hit in trace.search_text(ALICE, question, 5)] == [one.id]


def test_trace_prefers_the_rarer_word(trace: SqliteTrace) -> None:
    rare = episode("the gateway crashed on Saturn")
    trace.write([rare, *(episode("the gateway is fine") for _ in range(20))])
    hits = trace.search_text(ALICE, "gateway Saturn", 5)
    assert hits[0].id == rare.id
    assert hits[0].score > 2 * hits[1].score


def test_trace_takes_any_question_as_words_only(trace: SqliteTrace) -> None:
    trace.write([episode('say "NEAR" AND (x) * OR user_text:y')])
    for question in ('"', 'NEAR("a" b)', "user_text:y", "* OR *", "a\x00b", "", "the of"):
        trace.search_text(ALICE, question, 5)
    assert len(trace.search_text(ALICE, '"NEAR" OR', 5)) == 1


def test_trace_walks_from_an_entity_to_its_episodes_and_the_turn_after(trace: SqliteTrace) -> None:
    first = episode("Marie Curie works at ACME-7", conversation="c", turn=0)
    second = episode("and she has a cat", conversation="c", turn=1)
    third = episode("the cat is grey", conversation="c", turn=2)
    trace.write([third, first, second])
    hits = trace.neighbours(ALICE, ["Marie Curie"], 5)
    assert [hit.id for hit in hits] == [first.id, second.id]
    assert hits[0].names == ("Marie Curie",)


def test_trace_mends_the_chain_of_turns_when_one_is_deleted(trace: SqliteTrace) -> None:
    turns = [episode(f"turn {n} by Agent{n}Smith", turn=n) for n in range(3)]
    trace.write(turns)
    trace.delete(ALICE, [turns[1].id])
    hits = trace.neighbours(ALICE, ["Agent0Smith"], 5)
    assert [hit.id for hit in hits] == [turns[0].id, turns[2].id]
    assert trace.neighbours(ALICE, ["Agent1Smith"], 5) == []
    assert trace.search_text(ALICE, "Agent1Smith", 5) == []
    assert trace.count() == trace.count(ALICE) == 2


def test_trace_writes_an_episode_once_and_deletes_only_the_owners(trace: SqliteTrace) -> None:
    one = episode("Rex barks")
    trace.write([one])
    trace.write([one])
    assert trace.count(ALICE) == 1
    trace.write([episode("Rex sleeps", user="bob")])
    trace.delete(BOB, [one.id])
    assert [hit.id for hit in trace.search_text(ALICE, "Rex", 5)] == [one.id]


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
