"""An owner's memory can be seen, corrected, taken along, and ended; nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kiki.errors import RequestError, StoreUnavailableError, UnknownMemoryError
from memory import NEXT_TURN, Aeon, Episode, IdempotentReply, Owner
from memory.cerebellum import Cerebellum
from memory.fact_log import Ending, Learnt
from memory.facts import Fact, Summary, fact_id
from memory.journal import Journal
from memory.pages import Counts, Filter
from memory.rights import Remembered, Rights
from memory.sleep import SleepSettings
from memory.trace_sqlite import SqliteTrace
from tests.memory.parts import ALICE, START, aeon, embed, episode, vector_of

BOB = Owner("acme", "bob")
SECRET = "Zanzibarowitz"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Aeon]:
    made = Aeon(tmp_path / "memory", embedding_id="seeded", embed=embed, cerebellum=Cerebellum())
    made.open()
    yield made
    made.close()


def remember(memory: Aeon, text: str, **changes: Any) -> Episode:
    one = episode(text, **changes)
    memory.write(one, vector_of(text))
    return one


def learnt(memory: Aeon) -> None:
    assert memory.drain(20)
    assert memory.knowledge.drain(20)


def found(memory: Aeon, owner: Owner, text: str) -> list[str]:
    hits = memory.search(owner, text, vector_of(text), limit=5)
    return [hit.episode.user_text for hit in hits]


def files_with(folder: Path, text: str) -> list[str]:
    """The files below the folder that hold the text, in any case."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and text.lower().encode() in path.read_bytes().lower()
    ]


def test_a_deleted_episode_is_gone_with_its_facts_replies_and_words(
    memory: Aeon, tmp_path: Path
) -> None:
    text = f"My name is {SECRET} and I live in Timbuktu."
    one = episode(text, f"Hello {SECRET}.")
    reply = f'{{"id": "{one.id}", "text": "Hello {SECRET}."}}'
    memory.write(one, vector_of(text), IdempotentReply("key", "print", reply))
    told = f'{{"id": "other", "recalled": [{{"id": "{one.id}", "user": "{text}"}}]}}'
    memory.keep_reply(ALICE, IdempotentReply("later", "print", told))
    kept = remember(memory, "My dog is called Rex.")
    learnt(memory)
    assert SECRET in " ".join(fact.text for fact in memory.knowledge.facts(ALICE))
    assert files_with(tmp_path, SECRET) != []

    erased = memory.rights.delete(ALICE, [one.id])

    assert erased.followed
    assert erased.counts.episodes == 1
    assert erased.counts.facts >= 1
    assert erased.counts.replies == 2
    assert files_with(tmp_path, SECRET) == []
    assert found(memory, ALICE, text) == [kept.user_text]
    assert memory.find_reply(ALICE, "key") is None
    with pytest.raises(UnknownMemoryError, match=one.id):
        memory.rights.get(ALICE, one.id)


def test_nothing_of_many_deleted_texts_is_left_in_the_files(memory: Aeon, tmp_path: Path) -> None:
    texts = [f"secret{number:04d} " + "padding " * (number % 400) for number in range(300)]
    all_ = [remember(memory, text) for text in texts]
    learnt(memory)
    gone, kept = all_[::2], all_[1::2]
    assert memory.rights.delete(ALICE, [one.id for one in gone]).followed
    contents = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    left = [one.user_text[:10] for one in gone if one.user_text[:10].encode() in contents]
    assert left == []
    assert all(one.user_text[:10].encode() in contents for one in kept)


def test_deleting_all_leaves_the_other_owners(memory: Aeon, tmp_path: Path) -> None:
    for number in range(5):
        remember(memory, f"I live in {SECRET}town number {number}.")
        remember(memory, f"I like tea number {number}.", user=BOB.user)
    memory.keep_reply(ALICE, IdempotentReply("key", "print", SECRET))
    learnt(memory)
    erased = memory.rights.delete_all([ALICE])
    assert erased.followed
    assert erased.counts.episodes == 5
    assert erased.counts.replies == 1
    assert memory.rights.counts(ALICE) == Counts()
    assert memory.rights.counts(BOB).episodes == 5
    assert memory.rights.users("acme") == [BOB]
    assert files_with(tmp_path, SECRET) == []
    assert len(found(memory, BOB, "I like tea number 3.")) == 5


def test_what_is_anothers_is_not_there(memory: Aeon) -> None:
    one = remember(memory, "My dog is called Rex.")
    learnt(memory)
    for refused in (
        lambda: memory.rights.get(BOB, one.id),
        lambda: memory.rights.edit(BOB, one.id, user_text="no", answer_text=None),
        lambda: memory.rights.delete(BOB, [one.id]),
    ):
        with pytest.raises(UnknownMemoryError):
            refused()
    assert memory.rights.page(BOB, 10) == []
    assert found(memory, ALICE, one.user_text) == [one.user_text]


def test_an_edit_replaces_the_texts_everywhere_and_what_was_learnt(
    memory: Aeon, tmp_path: Path
) -> None:
    before = remember(memory, "Hello there.")
    one = remember(memory, f"My name is {SECRET}.")
    after = remember(memory, "Goodbye then.")
    learnt(memory)
    new = memory.rights.edit(
        ALICE, one.id, user_text="My name is Margarethe.", answer_text="Hello Margarethe."
    )
    learnt(memory)
    assert (new.id, new.turn, new.created) == (one.id, one.turn, one.created)
    assert files_with(tmp_path, SECRET) == []
    assert [fact.text for fact in memory.knowledge.facts(ALICE)] == ["My name is Margarethe."]
    assert found(memory, ALICE, new.user_text)[0] == new.user_text
    assert memory.episodes(ALICE, "c1") == [before, new, after]
    got = memory.rights.get(ALICE, one.id)
    assert isinstance(got, Remembered)
    assert got.facts == tuple(memory.knowledge.facts(ALICE))


def test_what_was_decided_of_the_old_text_of_an_edited_episode_is_not_learnt(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path, embedding_id="seeded")
    one = episode("My name is Ann.")
    journal.append(one)
    text, id_ = one.user_text, fact_id(one.id, 1)
    stale = Fact(id_, ALICE, text, (), one.id, one.created, None, START, None)
    assert journal.edit(ALICE, one.id, user_text="My name is Eve.", answer_text=None)
    vector = vector_of(one.user_text)
    journal.facts.learn(Learnt(((stale, vector),), ()), up_to=1, now=START)
    assert journal.facts.all(ALICE) == []
    journal.facts.learn(Learnt(((stale, vector),), ()), up_to=2, now=START)
    ending = Ending(stale.id, "deleted", START)
    journal.facts.learn(Learnt((), (ending,)), up_to=2, now=START)
    assert journal.facts.all(ALICE) == [stale]
    journal.close()


def test_facts_and_summaries_can_be_deleted_one_by_one_and_not_edited(memory: Aeon) -> None:
    one = remember(memory, "My name is Margarethe.")
    learnt(memory)
    (fact,) = memory.knowledge.facts(ALICE)
    assert memory.rights.get(ALICE, fact.id) == fact
    with pytest.raises(RequestError, match="only episodes"):
        memory.rights.edit(ALICE, fact.id, user_text="no", answer_text=None)
    erased = memory.rights.delete(ALICE, [fact.id])
    assert erased.counts == Counts(facts=1)
    assert memory.rights.facts(ALICE) == []
    assert found(memory, ALICE, one.user_text) == [one.user_text]


def test_a_summary_goes_with_any_of_its_episodes(memory: Aeon, tmp_path: Path) -> None:
    first, second = remember(memory, "one"), remember(memory, "two")
    summary = Summary("s1", ALICE, f"Two of {SECRET}.", (first.id, second.id), START)
    memory._parts()[0].summaries.keep(summary, "test")
    learnt(memory)
    assert memory.rights.get(ALICE, "s1") == summary
    assert memory.rights.delete(ALICE, [first.id]).counts == Counts(episodes=1, summaries=1)
    assert files_with(tmp_path, SECRET) == []


def test_a_store_that_is_down_gets_the_delete_when_it_is_back(
    memory: Aeon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = remember(memory, f"The word is {SECRET}.")
    learnt(memory)

    def down(*arguments: object) -> None:
        raise StoreUnavailableError("the store is down")

    with monkeypatch.context() as fault:
        fault.setattr(SqliteTrace, "delete", down)
        fault.setattr("memory.rights.SETTLE_S", 0.3)
        assert not memory.rights.delete(ALICE, [one.id]).followed
        assert found(memory, ALICE, one.user_text) == []
        assert memory.rights.page(ALICE, 10) == []
    memory.close()
    memory.open()
    assert memory.rights._followed()
    assert files_with(tmp_path, SECRET) == []


def test_what_sleep_deletes_for_its_age_leaves_the_files_too(memory: Aeon, tmp_path: Path) -> None:
    remember(memory, f"My name is {SECRET}.")
    learnt(memory)
    memory.knowledge.sleep(SleepSettings(1, None), now=START + timedelta(days=30))
    assert all(one.settle(20) for one in memory._parts()[1:])
    assert memory.rights.counts(ALICE) == Counts()
    assert files_with(tmp_path, SECRET) == []


def test_pages_go_through_all_episodes_once_and_filters_hold(memory: Aeon) -> None:
    all_ = [
        remember(memory, f"note {number} 100%", conversation=f"c{number % 2}")
        for number in range(7)
    ]
    seen: list[str] = []
    start: int | None = None
    while rows := memory.rights.page(ALICE, 3, start=start):
        seen += [row.episode.id for row in rows]
        start = rows[-1].seq
    assert seen == [one.id for one in reversed(all_)]

    def ids(wanted: Filter) -> set[str]:
        return {row.episode.id for row in memory.rights.page(ALICE, 10, wanted=wanted)}

    assert ids(Filter(conversation="c1")) == {one.id for one in all_[1::2]}
    assert ids(Filter(contains="NOTE 3")) == {all_[3].id}
    assert ids(Filter(contains="%")) == {one.id for one in all_}
    assert ids(Filter(contains="n_te")) == set()
    assert ids(Filter(since=all_[2].created, until=all_[4].created)) == {
        one.id for one in all_[2:4]
    }


def test_what_is_exported_can_be_kept_again_and_nothing_is_doubled(memory: Aeon) -> None:
    said = [remember(memory, f"My name is Margarethe the {number}th.") for number in range(3)]
    learnt(memory)
    exported = list(memory.rights.export(ALICE))
    episodes = [one for one in exported if isinstance(one, Episode)]
    assert episodes == said
    assert [one for one in exported if isinstance(one, Fact)] == memory.rights.facts(ALICE)
    assert memory.rights.keep(episodes) == [(one.id, False) for one in said]
    memory.rights.delete_all([ALICE])
    assert memory.rights.keep(episodes) == [(one.id, True) for one in said]
    learnt(memory)
    assert memory.episodes(ALICE, "c1") == said
    assert found(memory, ALICE, said[1].user_text)[0] == said[1].user_text


def test_two_owners_may_use_the_same_id(memory: Aeon) -> None:
    ours, theirs = episode("ours", id="note"), episode("theirs", id="note", user="bob")
    assert memory.rights.keep([ours]) == [("note", True)]
    ((id_, new),) = memory.rights.keep([theirs])
    assert new
    assert id_ != "note"
    assert memory.rights.keep([theirs]) == [(id_, False)]
    learnt(memory)
    assert found(memory, BOB, "theirs") == ["theirs"]
    memory.rights.delete(ALICE, ["note"])
    assert memory.rights.keep([theirs]) == [(id_, False)]


def test_turns_of_a_conversation_written_at_once_get_numbers_of_their_own(memory: Aeon) -> None:
    def write(number: int) -> None:
        memory.write(episode(f"turn {number}", turn=NEXT_TURN), np.zeros(768, np.float32))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    turns = [one.turn for one in memory.episodes(ALICE, "c1")]
    assert turns == list(range(40))


def test_edits_at_once_of_both_texts_keep_both(memory: Aeon) -> None:
    for number in range(10):
        one = remember(memory, f"question {number}")
        changes: list[dict[str, Any]] = [
            {"user_text": "another question", "answer_text": None},
            {"user_text": None, "answer_text": "another answer"},
        ]
        with ThreadPoolExecutor(2) as pool:
            edits = [pool.submit(memory.rights.edit, ALICE, one.id, **how) for how in changes]
        assert [edit.result().id for edit in edits] == [one.id, one.id]
        (kept,) = [each for each in memory.episodes(ALICE, "c1") if each.id == one.id]
        assert (kept.user_text, kept.answer_text) == ("another question", "another answer")


def test_an_episode_that_is_deleted_while_it_is_edited_is_named(
    memory: Aeon, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = remember(memory, "My dog is called Rex.")
    looked = memory.rights.get(ALICE, one.id)
    memory.rights.delete(ALICE, [one.id])
    monkeypatch.setattr(Rights, "get", lambda *_: looked)
    with pytest.raises(UnknownMemoryError, match="deleted meanwhile"):
        memory.rights.edit(ALICE, one.id, user_text="My cat is called Tom.", answer_text=None)


def test_a_deleted_text_goes_although_another_owner_takes_its_id(tmp_path: Path) -> None:
    memory = aeon(tmp_path)
    bob = Owner("acme", "bob")
    memory.rights.keep([episode("bees of Toulouse", id="note", user=bob.user)])
    assert memory.drain(10)
    # The stores are behind: the id is taken again before they follow.
    assert memory._journal is not None
    memory._journal.removals.erase(bob, ["note"])
    assert memory.rights.keep([episode("a dog", id="note")]) == [("note", True)]
    assert memory._trace is not None
    assert memory._atlas is not None
    assert memory._trace.settle(10)
    assert memory._atlas.settle(10)
    assert memory._trace.store().count(bob) == memory._atlas.store().count(bob) == 0
    assert memory._trace.store().count(ALICE) == memory._atlas.store().count(ALICE) == 1
    memory.close()
