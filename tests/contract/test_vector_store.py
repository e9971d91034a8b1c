"""What every vector store does. A Qdrant server is tried where KIKI_TEST_QDRANT_URL names one;
the client's own local mode and a scripted upstream stand in for its wire everywhere."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from kiki.errors import StoreError, StoreReplacedError, StoreUnavailableError
from memory import Owner
from memory.atlas import Removed, VectorPoint, VectorStore
from memory.atlas_edge import EdgeAtlas
from memory.atlas_qdrant import QdrantAtlas
from memory.remote import Limits
from memory.stores import Stores
from tests.memory.parts import ALICE, unit_vectors
from tests.memory.qdrant_upstream import running

BOB = Owner("acme", "bob")
# A crowded machine must not fail a test.
PATIENT = Limits(read_s=30, write_s=30)
Open = Callable[..., VectorStore]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


@pytest.fixture(params=["edge", "qdrant-local", "qdrant-wire", "qdrant-server"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the store of this test; again, where it outlives its closing."""
    opened: list[VectorStore] = []
    collection = f"kiki-test-{uuid.uuid4().hex}"
    url = ""

    def open_store(
        embedding: str = "seeded", dimension: int = 8, anew: bool = False
    ) -> VectorStore:
        if url == "":
            store = Stores().open_vectors(
                tmp_path, embedding_id=embedding, dimension=dimension, anew=anew
            )
        else:
            store = QdrantAtlas(
                url,
                embedding_id=embedding,
                dimension=dimension,
                collection=collection,
                limits=PATIENT,
                anew=anew,
            )
        opened.append(store)
        return store

    with ExitStack() as stack:
        if request.param == "qdrant-local":
            url = ":memory:"
        elif request.param == "qdrant-wire":
            url = stack.enter_context(running()).url
        elif request.param == "qdrant-server":
            url = _server()
            stack.callback(_drop, url, collection)
        yield open_store
        for store in opened:
            store.close()


def _drop(url: str, collection: str) -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(url)
    for name in (collection, f"{collection}-removed"):
        client.delete_collection(name)


def _server() -> str:
    url = os.environ.get("KIKI_TEST_QDRANT_URL")
    if not url:
        pytest.skip("KIKI_TEST_QDRANT_URL names no Qdrant server")
    return url


@pytest.fixture
def store(opens: Open) -> VectorStore:
    return opens()


def points(owner: Owner, count: int, seed: int = 0) -> list[VectorPoint]:
    vectors = unit_vectors(count, seed=seed, dimension=8)
    return [
        VectorPoint(f"{owner.tenant}-{owner.user}-{n}", owner, vector, f'{{"n": {n}}}')
        for n, vector in enumerate(vectors)
    ]


def test_the_nearest_are_found_by_cosine(store: VectorStore) -> None:
    stored = points(ALICE, 50)
    store.upsert(stored)
    store.flush()
    query = stored[7].vector
    hits = store.search(ALICE, query, 5)
    expected = sorted(stored, key=lambda point: -float(point.vector @ query))[:5]
    assert [hit.id for hit in hits] == [point.id for point in expected]
    assert [hit.score for hit in hits] == pytest.approx(
        [float(point.vector @ query) for point in expected], abs=2e-3
    )


def test_what_is_excluded_or_deleted_is_not_found(store: VectorStore) -> None:
    stored = points(ALICE, 3)
    store.upsert(stored)
    store.delete([Removed(stored[1].id, ALICE, 0), Removed("never there", ALICE, 0)])
    store.delete([])
    found = {hit.id for hit in store.search(ALICE, stored[0].vector, 9, {stored[0].id})}
    assert found == {stored[2].id}
    assert store.count() == 2


def test_a_point_written_again_is_kept_once_with_its_newest_vector(store: VectorStore) -> None:
    first, second = points(ALICE, 2)
    store.upsert([first, second])
    store.upsert([VectorPoint(first.id, ALICE, -first.vector)])
    assert store.count() == 2
    assert store.search(ALICE, -first.vector, 1)[0].score == pytest.approx(1, abs=2e-3)


def test_owners_are_apart_whatever_their_names(store: VectorStore) -> None:
    owners = [
        Owner("a", "b"),
        Owner("a", 'b"'),
        Owner('a", "b', ""),
        Owner("b", "a"),
        Owner("a", ""),
    ]
    vector = unit_vectors(1, dimension=8)[0]
    for number, owner in enumerate(owners):
        store.upsert([VectorPoint(f"p{number}", owner, vector)])
    for number, owner in enumerate(owners):
        assert [hit.id for hit in store.search(owner, vector, 9)] == [f"p{number}"]
        assert store.count(owner) == 1


def test_owners_who_use_the_same_id_have_a_point_each(store: VectorStore) -> None:
    ours, theirs = unit_vectors(2, dimension=8)
    store.upsert([VectorPoint("note", ALICE, ours), VectorPoint("note", BOB, theirs)])
    assert store.count() == 2
    assert store.search(BOB, theirs, 9)[0].score == pytest.approx(1, abs=2e-3)
    assert store.search(ALICE, ours, 9, {"note"}) == []
    store.delete([Removed("note", ALICE, 0)])
    assert store.search(ALICE, ours, 9) == []
    assert [hit.id for hit in store.search(BOB, theirs, 9)] == ["note"]


def test_a_shared_store_keeps_the_newest_copy_and_what_is_written_after_a_removal(
    store: VectorStore,
) -> None:
    old, new = unit_vectors(2, dimension=8)
    store.upsert([VectorPoint("note", ALICE, new, "new", 20)])
    if not store.shared:
        return
    store.upsert([VectorPoint("note", ALICE, old, "old", 10)])
    store.delete([Removed("note", ALICE, 10)])
    (kept,) = store.fetch(ALICE, ["note"])
    assert (kept.record, kept.written) == ("new", 20)
    store.delete([Removed("note", ALICE, 20)])
    assert store.count() == 0


def test_a_store_made_by_another_model_is_refused_with_the_command(opens: Open) -> None:
    if _forgets(first := opens()):
        pytest.skip("the client's local mode forgets at its end")
    first.close()
    with pytest.raises(StoreError, match=r"seeded.*other.*kiki memory rebuild"):
        opens("other")
    with pytest.raises(StoreError, match=r"8-d.*16-d"):
        opens("seeded", 16)
    again = opens()
    assert again.generation == first.generation


def test_a_store_made_anew_is_empty_and_of_another_generation(opens: Open) -> None:
    first = opens()
    first.upsert(points(ALICE, 2))
    if not first.shared:
        first.close()
    second = opens(anew=True)
    assert second.count() == 0
    assert second.generation != first.generation
    second.upsert(points(ALICE, 2))
    assert second.count(ALICE) == 2
    second.verify()
    if first.shared and not _forgets(first):
        with pytest.raises(StoreReplacedError, match="made anew"):
            first.verify()


def test_a_wrong_dimension_and_a_closed_store_are_named(store: VectorStore) -> None:
    if isinstance(store, EdgeAtlas):
        with pytest.raises(StoreError, match="dim"):
            store.search(ALICE, np.ones(5, np.float32), 1)
    store.close()
    with pytest.raises(StoreUnavailableError):
        store.search(ALICE, np.ones(8, np.float32), 1)


def test_a_shared_store_gives_its_owner_what_another_journal_wrote(opens: Open) -> None:
    store = opens()
    stored = points(ALICE, 2)
    store.upsert(stored)
    found = store.fetch(ALICE, [stored[1].id, "never there"])
    if not store.shared:
        assert found == []
        return
    assert [point.id for point in found] == [stored[1].id]
    assert found[0].record == stored[1].record
    assert found[0].vector == pytest.approx(stored[1].vector, abs=2e-3)
    assert store.fetch(BOB, [stored[1].id]) == []


def test_what_one_gateway_deleted_is_told_to_the_others(opens: Open) -> None:
    store = opens()
    noted = [Removed(f"p{n}", ALICE, n, n * 1000) for n in range(3)]
    store.publish(noted)
    store.publish(noted[:1])
    if not store.shared:
        assert store.published(0) == []
        return
    told = sorted(store.published(0), key=lambda one: one.at)
    assert told == noted
    assert [one.id for one in store.published(2000)] == ["p2"]
    if not _forgets(store):
        assert len(opens(anew=True).published(0)) == 3


def _forgets(store: VectorStore) -> bool:
    return isinstance(store, QdrantAtlas) and store.url == ":memory:"
