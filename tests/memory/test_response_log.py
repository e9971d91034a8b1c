from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kiki.errors import UnknownResponseError
from memory import NEXT_TURN, Episode, Owner
from memory.journal import Journal
from memory.response_log import LIFETIME_S, StoredResponse

ANNA = Owner("acme", "anna")
FIRST = StoredResponse("resp_1", ANNA, None, "[]", '{"id": "resp_1"}')
SECOND = StoredResponse(
    "resp_2", ANNA, "resp_1", "[]", '{"id": "resp_2", "previous_response_id": "resp_1"}'
)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path, embedding_id="test")
    yield journal
    journal.close()


def test_a_chain_is_read_oldest_first(journal):
    for response in (FIRST, SECOND):
        journal.responses.keep(response)
    assert journal.responses.chain(ANNA, "resp_2") == [FIRST, SECOND]
    assert journal.responses.find("acme", "resp_1") == FIRST


def test_other_tenants_and_users_find_nothing(journal):
    journal.responses.keep(FIRST)
    with pytest.raises(UnknownResponseError):
        journal.responses.find("other", "resp_1")
    with pytest.raises(UnknownResponseError):
        journal.responses.delete("other", "resp_1")
    with pytest.raises(UnknownResponseError):
        journal.responses.chain(replace(ANNA, user="ben"), "resp_1")
    assert journal.responses.find("acme", "resp_1") == FIRST


def test_a_chain_with_a_hole_is_no_chain(journal):
    for response in (FIRST, SECOND):
        journal.responses.keep(response)
    journal.responses.delete("acme", "resp_1")
    with pytest.raises(UnknownResponseError, match="resp_1"):
        journal.responses.chain(ANNA, "resp_2")


def test_thirty_days_later_it_is_gone(journal, monkeypatch):
    journal.responses.keep(FIRST)
    import time

    later = time.time() + LIFETIME_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(UnknownResponseError):
        journal.responses.find("acme", "resp_1")


def test_deleting_an_episode_takes_its_response_and_those_that_go_on_from_it(journal):
    journal.append(episode("resp_1"))
    for response in (FIRST, SECOND, replace(FIRST, id="resp_3", body='{"id": "resp_3"}')):
        journal.responses.keep(response)
    journal.removals.delete(ANNA, ["resp_1"])
    for gone in ("resp_1", "resp_2"):
        with pytest.raises(UnknownResponseError):
            journal.responses.find("acme", gone)
    assert json.loads(journal.responses.find("acme", "resp_3").body)["id"] == "resp_3"


def test_clearing_an_owner_leaves_the_responses_of_others(journal):
    others = replace(FIRST, id="resp_9", owner=replace(ANNA, user="ben"))
    for response in (FIRST, others):
        journal.responses.keep(response)
    journal.removals.clear(ANNA)
    with pytest.raises(UnknownResponseError):
        journal.responses.find("acme", "resp_1")
    assert journal.responses.find("acme", "resp_9") == others


def episode(id_: str) -> Episode:
    return Episode(
        id=id_,
        tenant=ANNA.tenant,
        user=ANNA.user,
        conversation="c",
        turn=NEXT_TURN,
        user_text="hi",
        answer_text="hello",
        domains=(),
        adapters=(),
        created=datetime.now(UTC),
    )
