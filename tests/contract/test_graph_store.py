"""What every graph store does. The real neo4j driver is tried over Bolt on ArcadeDB's server, and
on the Neo4j that KIKI_TEST_NEO4J_URI names, with KIKI_TEST_NEO4J_USER and _PASSWORD: an empty one,
for its graph is deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kiki.errors import StoreReplacedError, StoreUnavailableError
from memory import Owner
from memory.facts import Fact, Summary
from memory.remote import Limits
from memory.stores import Stores
from memory.trace import GraphStore
from tests.memory.bolt_server import DATABASE, PASSWORD, bolt_server
from tests.memory.parts import ALICE, START, episode

BOB = Owner("acme", "bob")
# A crowded machine must not fail a test.
PATIENT = Limits(read_s=60, write_s=60)
Open = Callable[..., GraphStore]


@pytest.fixture(scope="module")
def arcadedb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with bolt_server(tmp_path_factory.mktemp("arcadedb")) as uri:
        yield Stores(
            graph="neo4j",
            neo4j_uri=uri,
            neo4j_user="root",
            neo4j_password=PASSWORD,
            neo4j_database=DATABASE,
            limits=PATIENT,
        )


@pytest.fixture(scope="module")
def server() -> Stores:
    uri = os.environ.get("KIKI_TEST_NEO4J_URI")
    if not uri:
        pytest.skip("KIKI_TEST_NEO4J_URI names no Neo4j server")
    password = os.environ.get("KIKI_TEST_NEO4J_PASSWORD", "")
    user = os.environ.get("KIKI_TEST_NEO4J_USER", "neo4j")
    return Stores(
        graph="neo4j",
        neo4j_uri=uri,
        neo4j_user=user,
        neo4j_password=password,
        limits=PATIENT,
    )


@pytest.fixture(params=["sqlite", "arcadedb", "neo4j-server"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the store of this test, empty at first."""
    names = {"arcadedb": "arcadedb", "neo4j-server": "server"}
    stores = Stores()
    if request.param in names:
        stores = request.getfixturevalue(names[request.param])
    opened: list[GraphStore] = []

    def open_store(anew: bool = False) -> GraphStore:
        store = stores.open_graph(tmp_path, anew=anew or not opened)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def trace(opens: Open) -> GraphStore:
    return opens()


def fact(id_: str, text: str, source: str, *names: str, **changes: object) -> Fact:
    fields: dict[str, object] = {
        "id": id_,
        "owner": ALICE,
        "text": text,
        "entities": names,
        "source_episode": source,
        "valid_from": START,
        "valid_to": None,
        "recorded_from": START,
        "recorded_to": None,
    }
    return Fact(**fields | changes)  # type: ignore[arg-type]


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def test_words_of_both_sides_are_found_across_forms_and_accents(trace: GraphStore) -> None:
    one = episode("Nous avons visité le musée à Angoulême", "It was opened in 1844.")
    trace.write([one, episode("Something else entirely")])
    for question in ("musee angouleme", "opening of 1844", "MUSÉE?"):
        assert [hit.id for hit in trace.search_text(ALICE, question, 5)] == [one.id]


def test_the_rarer_word_counts_more(trace: GraphStore) -> None:
    rare = episode("the gateway crashed on Saturn")
    trace.write([rare, *(episode("the gateway is fine") for _ in range(20))])
    hits = trace.search_text(ALICE, "gateway Saturn", 5)
    assert hits[0].id == rare.id
    assert hits[0].score > 2 * hits[1].score


def test_words_are_found_among_many_owners_and_beside_a_large_one(trace: GraphStore) -> None:
    small = episode("Rex sleeps on the sofa", user="bob")
    trace.write([episode(f"Rex barks at number {n}") for n in range(30)])
    trace.write([small])
    assert [hit.id for hit in trace.search_text(BOB, "Rex sofa barks", 9)] == [small.id]
    assert len(trace.search_text(ALICE, "Rex sofa", 99)) == 30


def test_any_question_is_taken_as_words_only(trace: GraphStore) -> None:
    trace.write([episode('say "NEAR" AND (x) * OR user_text:y')])
    for question in (
        '"',
        'NEAR("a" b)',
        "user_text:y",
        "* OR *",
        "a\x00b",
        "",
        "the of",
        "' }) //",
    ):
        trace.search_text(ALICE, question, 5)
    assert len(trace.search_text(ALICE, '"NEAR" OR', 5)) == 1


def test_an_entity_leads_to_its_episodes_and_the_turn_after(trace: GraphStore) -> None:
    first = episode("Marie Curie works at ACME-7", conversation="c", turn=0)
    second = episode("and she has a cat", conversation="c", turn=1)
    third = episode("the cat is grey", conversation="c", turn=2)
    trace.write([third, first, second])
    hits = trace.neighbours(ALICE, ["Marie Curie"], 5)
    assert [hit.id for hit in hits] == [first.id, second.id]
    assert hits[0].names == ("Marie Curie",)


def test_the_turns_around_one_are_given_by_turn(trace: GraphStore) -> None:
    turns = [episode(f"turn {n}", conversation="c", turn=n) for n in range(6)]
    trace.write(turns[3:])
    trace.write([turns[1], turns[0], turns[2]])
    trace.write([episode("elsewhere", conversation="d", turn=2)])
    assert trace.around(ALICE, turns[3].id, 2) == [turns[n].id for n in (1, 2, 4, 5)]
    assert trace.around(BOB, turns[3].id, 2) == []


def test_the_chain_of_turns_is_mended_when_one_is_deleted(trace: GraphStore) -> None:
    turns = [episode(f"turn {n} by Agent{n}Smith", turn=n) for n in range(3)]
    trace.write(turns)
    trace.delete(ALICE, [turns[1].id])
    hits = trace.neighbours(ALICE, ["Agent0Smith"], 5)
    assert [hit.id for hit in hits] == [turns[0].id, turns[2].id]
    assert trace.neighbours(ALICE, ["Agent1Smith"], 5) == []
    assert trace.search_text(ALICE, "Agent1Smith", 5) == []
    assert trace.count() == trace.count(ALICE) == 2


def test_an_episode_is_kept_once_and_deleted_only_by_its_owner(trace: GraphStore) -> None:
    one = episode("Rex barks")
    trace.write([one])
    trace.write([one])
    assert trace.count(ALICE) == 1
    trace.write([episode("Rex sleeps", user="bob")])
    trace.delete(BOB, [one.id])
    assert [hit.id for hit in trace.search_text(ALICE, "Rex", 5)] == [one.id]
    assert len(trace.neighbours(BOB, ["Rex"], 5)) == 1


def test_a_fact_is_found_by_when_it_held_and_when_that_was_known(trace: GraphStore) -> None:
    paris, lyon = episode("I live in Paris"), episode("I moved to Lyon on day 10")
    trace.write([paris, lyon])
    first = fact("f1", "lives in Paris", paris.id, "home", "paris")
    ended = fact(
        "f1", "lives in Paris", paris.id, "home", "paris", valid_to=day(10), recorded_to=day(12)
    )
    second = fact(
        "f2",
        "lives in Lyon",
        lyon.id,
        "home",
        "lyon",
        valid_from=day(10),
        recorded_from=day(12),
        supersedes=("f1",),
    )

    def home(valid: int, known: int, *names: str) -> list[str]:
        found = trace.facts_about(
            ALICE, names or ("Home",), 5, valid_at=day(valid), known_at=day(known)
        )
        return [one.id for one in found]

    trace.write_facts([first])
    assert home(5, 5) == ["f1"]
    trace.write_facts([second, ended])
    assert home(11, 11) == []
    assert home(13, 13) == ["f2"]
    assert home(13, 13, "paris") == []
    assert trace.history(ALICE, "f2") == [second, ended]
    assert trace.history(BOB, "f2") == []
    assert trace.facts_about(BOB, ["home"], 5, valid_at=day(13), known_at=day(13)) == []


def test_a_fact_that_ended_is_still_known_as_it_was(trace: GraphStore) -> None:
    one = episode("I live in Paris")
    trace.write([one])
    ended = fact("f1", "lives in Paris", one.id, "paris", valid_to=day(10), recorded_to=day(12))
    trace.write_facts([ended])
    before = trace.facts_about(ALICE, ["paris"], 5, valid_at=day(5), known_at=day(11))
    assert before == [ended]
    assert trace.facts_about(ALICE, ["paris"], 5, valid_at=day(11), known_at=day(11)) == []


def test_a_summary_covers_its_members_until_one_is_deleted(trace: GraphStore) -> None:
    members = [episode(f"Rex is {word}") for word in ("brown", "old", "fast")]
    trace.write(members)
    covered = tuple(one.id for one in members[:2])
    trace.write_summaries([Summary("s1", ALICE, "Rex is brown and old", covered, START)])
    ids = [one.id for one in members]
    assert trace.summaries_of(ALICE, ids) == dict.fromkeys(covered, "s1")
    assert trace.summaries_of(BOB, ids) == {}
    trace.delete(ALICE, [covered[0]])
    assert trace.summaries_of(ALICE, ids) == {covered[1]: "s1"}
    trace.delete(ALICE, ["s1"])
    assert trace.summaries_of(ALICE, ids) == {}
    assert trace.count(ALICE) == 2


def test_a_fact_and_its_entities_are_deleted_alone(trace: GraphStore) -> None:
    one = episode("Rex barks at Tom")
    trace.write([one])
    trace.write_facts([fact("f1", "has a dog", one.id, "rex", "dog")])
    trace.delete(ALICE, ["f1", "never there"])
    for name in ("rex", "dog"):
        assert trace.facts_about(ALICE, [name], 5, valid_at=day(1), known_at=day(1)) == []
    assert trace.history(ALICE, "f1") == []
    assert [hit.id for hit in trace.neighbours(ALICE, ["Rex"], 5)] == [one.id]


def test_owners_are_apart_whatever_their_names(trace: GraphStore) -> None:
    owners = [
        Owner("a", "b"),
        Owner("a", 'b"'),
        Owner('a", "b', ""),
        Owner("b", "a"),
        Owner("a", ""),
    ]
    mine = {}
    for owner in owners:
        one = episode("Rex met Ada Lovelace", tenant=owner.tenant, user=owner.user)
        mine[owner] = one.id
        trace.write([one])
    for owner in owners:
        assert [hit.id for hit in trace.search_text(owner, "Rex met", 9)] == [mine[owner]]
        assert [hit.id for hit in trace.neighbours(owner, ["Ada Lovelace"], 9)] == [mine[owner]]
        assert trace.count(owner) == 1


def test_a_store_made_anew_is_empty_and_of_another_generation(opens: Open) -> None:
    first = opens()
    first.write([episode("Rex barks")])
    generation = first.generation
    second = opens()
    assert second.generation == generation
    second.close()
    first.verify()
    third = opens(anew=True)
    assert third.count() == 0
    assert third.generation != generation


def test_another_process_that_made_the_graph_anew_is_noticed(opens: Open) -> None:
    first = opens()
    second = opens(anew=True)
    if type(first).__name__ == "SqliteTrace":
        pytest.skip("one process has this store for itself")
    with pytest.raises(StoreReplacedError, match="made anew"):
        first.verify()
    second.verify()


def test_a_closed_store_says_so(trace: GraphStore) -> None:
    trace.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        trace.count()
