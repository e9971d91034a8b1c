"""What a caller can do with their own memory over HTTP, on the real gateway."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FACT = "My sister Margarethe keeps bees in Toulouse and sells the honey on Saturdays."


async def keep(http, body, **query):
    response = await http.post("/v1/memory", json=body, params={"wait": True} | query)
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def listed(http, user: str, **query) -> Any:
    response = await http.get("/v1/memory", params={"user": user} | query)
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def say(http, text: str, user: str, **headers):
    body = {
        "model": "base",
        "user": user,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 4,
        "kiki": {"explain": True},
    }
    response = await http.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_what_is_kept_is_listed_searched_and_recalled_by_chat(http):
    (kept,) = await keep(http, {"text": FACT, "user": "m-anna", "time": "2026-05-01T10:00:00Z"})
    assert kept["new"] is True
    (one,) = await listed(http, "m-anna")
    assert (one["id"], one["text"], one["time"]) == (kept["id"], FACT, "2026-05-01T10:00:00Z")
    found = (
        await http.get("/v1/memory/search", params={"q": "Where are the bees?", "user": "m-anna"})
    ).json()
    assert found["data"][0]["id"] == kept["id"]
    assert found["data"][0]["in_prompt"] is True
    assert any(reason.startswith("vector") for reason in found["data"][0]["reasons"])
    assert "Toulouse" in found["prompt"]
    body = {"q": "Where are the bees?", "user": "m-anna"}
    assert (await http.post("/v1/memory/search", json=body)).json() == found
    stranger = {"q": "Where are the bees?", "user": "m-boris"}
    assert (await http.post("/v1/memory/search", json=stranger)).json()["data"] == []
    answer = await say(http, "Where does my sister keep her bees?", "m-anna")
    stages = {stage["name"]: stage["decision"] for stage in answer["kiki"]["stages"]}
    assert kept["id"] in [episode["id"] for episode in stages["recall"]["episodes"]]


async def test_messages_become_an_episode_a_turn(http):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "I live in Lyon."},
    ]
    body = {"messages": messages, "id": "talk", "conversation": "c", "user": "m-carl"}
    assert [one["id"] for one in await keep(http, body)] == ["talk", "talk.2"]
    assert [one["new"] for one in await keep(http, body)] == [False, False]
    newest, oldest = await listed(http, "m-carl", conversation="c")
    assert (oldest["text"], oldest["answer"], oldest["turn"]) == ("Hello.", "Hi.", 0)
    assert (newest["text"], newest["answer"], newest["turn"]) == ("I live in Lyon.", "", 1)


async def test_a_list_is_kept_whole_or_not_at_all(http):
    good, bad = {"text": "one", "user": "m-dora"}, {"text": "t\x00o", "user": "m-dora"}
    refused = await http.post("/v1/memory", json=[good, bad])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "[1].text"
    assert await listed(http, "m-dora") == []
    assert len(await keep(http, [good, good | {"text": "two"}])) == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "a", "messages": [{"role": "user", "content": "b"}]}, "text"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": "b"}]}, "messages"),
        ({"text": "a", "id": "no spaces"}, "id"),
        ({"text": "a", "time": "last May"}, "time"),
        ({"text": "a", "usr": "b"}, "usr"),
        ({"text": "a\ud800"}, "text"),
        ({"text": "x" * 1_000_001}, "text"),
        ([], "body"),
        ([{"text": 3}], "[0].text"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_field(http, body, param):
    headers = {"content-type": "application/json"}
    response = await http.post("/v1/memory", content=json.dumps(body), headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_a_megabyte_and_odd_unicode_are_kept_as_they_are(http):
    odd = "a\u202eb\ufeff\u0000"[:-1] + "👩‍👩‍👧 \U0010ffff e\u0301"
    for text in ("y" * 1_000_000, odd):
        (kept,) = await keep(http, {"text": text, "user": "m-odd"}, wait=False)
        got = await http.get(f"/v1/memory/{kept['id']}", params={"user": "m-odd"})
        assert got.json()["text"] == text


@settings(max_examples=40)
@given(text=st.text(st.characters(exclude_categories=[]), min_size=1))
async def test_any_text_is_kept_as_it_is_or_refused(http, text):
    headers = {"content-type": "application/json"}
    body = json.dumps({"text": text, "user": "m-any"})
    response = await http.post("/v1/memory", content=body, headers=headers)
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        assert response.status_code == 400
        return
    assert response.status_code == 200
    (kept,) = response.json()["data"]
    got = await http.get(f"/v1/memory/{kept['id']}", params={"user": "m-any"})
    assert got.json()["text"] == text


async def test_pages_hold_every_episode_once(http):
    await keep(http, [{"text": f"note {number}", "user": "m-emil"} for number in range(7)])
    seen: list[str] = []
    query: dict[str, object] = {"user": "m-emil", "limit": 3}
    while True:
        page = (await http.get("/v1/memory", params=query)).json()
        seen += [one["text"] for one in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["next"]
    assert seen == [f"note {number}" for number in reversed(range(7))]
    assert page["next"] is None
    assert [one["text"] for one in await listed(http, "m-emil", contains="TE 5")] == ["note 5"]


async def test_an_edit_changes_what_is_found_and_learnt(http, services):
    (kept,) = await keep(http, {"text": "My name is Margarethe.", "user": "m-fay"})
    address, who = f"/v1/memory/{kept['id']}", {"user": "m-fay"}
    edited = await http.patch(address, params=who, json={"text": "My name is Florentine."})
    assert edited.status_code == 200, edited.text
    assert await asyncio.to_thread(services.aeon.knowledge.drain, 30)
    got = (await http.get(address, params=who)).json()
    assert got["text"] == "My name is Florentine."
    assert [fact["text"] for fact in got["facts"]] == ["My name is Florentine."]
    assert [fact["text"] for fact in await listed(http, "m-fay", kind="facts")] == [
        "My name is Florentine."
    ]
    nothing = await http.patch(address, params=who, json={})
    assert nothing.status_code == 400


async def test_one_can_be_deleted_and_is_then_not_there(http):
    (kept,) = await keep(http, {"text": FACT, "user": "m-gus"})
    address, who = f"/v1/memory/{kept['id']}", {"user": "m-gus"}
    assert (await http.delete(address, params={"user": "m-other"})).status_code == 404
    gone = (await http.delete(address, params=who)).json()
    assert (gone["episodes"], gone["followed"]) == (1, True)
    for method in ("GET", "DELETE", "PATCH"):
        body = {"text": "a"} if method == "PATCH" else None
        missing = await http.request(method, address, params=who, json=body)
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "memory_not_found"


async def test_a_kept_reply_goes_with_its_episode(http):
    first = await say(http, FACT, "m-hal", **{"idempotency-key": "k"})
    again = await say(http, FACT, "m-hal", **{"idempotency-key": "k"})
    assert again["id"] == first["id"]
    address = f"/v1/memory/{first['id']}"
    gone = (await http.delete(address, params={"user": "m-hal"})).json()
    assert (gone["episodes"], gone["replies"]) == (1, 1)
    anew = await say(http, FACT, "m-hal", **{"idempotency-key": "k"})
    assert anew["id"] != first["id"]


async def test_all_is_deleted_only_when_it_is_meant(http, services):
    await keep(http, [{"text": f"I like tea {number}.", "user": "m-ida"} for number in range(3)])
    await keep(http, {"text": "I like coffee.", "user": "m-jo"})
    for half in ({}, {"all": True}, {"confirm": "delete"}):
        refused = await http.delete("/v1/memory", params={"user": "m-ida"} | half)
        assert refused.status_code == 400
        assert "all 3 episodes of the user 'm-ida'" in refused.json()["error"]["message"]
    query = {"user": "m-ida", "all": True, "confirm": "delete"}
    gone = (await http.delete("/v1/memory", params=query)).json()
    assert (gone["episodes"], gone["users"], gone["followed"]) == (3, 1, True)
    assert await listed(http, "m-ida") == []
    status = (await http.get("/v1/memory/status", params={"user": "m-ida"})).json()
    assert (status["episodes"], status["facts"], status["summaries"]) == (0, 0, 0)
    assert len(await listed(http, "m-jo")) == 1


async def test_an_export_is_imported_again_for_another_user_and_once(http, services):
    said = [{"text": f"My dog is called Rex the {n}th.", "user": "m-kai"} for n in range(4)]
    await keep(http, said)
    assert await asyncio.to_thread(services.aeon.knowledge.drain, 30)
    exported = await http.get("/v1/memory/export", params={"user": "m-kai"})
    rows = [json.loads(line) for line in exported.text.splitlines()]
    assert [row["text"] for row in rows[:4]] == [one["text"] for one in said]
    assert {row["object"] for row in rows[4:]} == {"memory.fact"}

    async def bring(user: str) -> Any:
        response = await http.post(
            "/v1/memory/import", params={"user": user}, content=exported.content
        )
        assert response.status_code == 200, response.text
        return response.json()

    assert (await bring("m-kai"))["known"] == 4
    first = await bring("m-lea")
    assert (first["new"], first["known"], first["skipped"]) == (4, 0, len(rows) - 4)
    assert (await bring("m-lea"))["known"] == 4
    texts = [one["text"] for one in reversed(await listed(http, "m-lea"))]
    assert texts == [one["text"] for one in said]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 .*not valid JSON"),
        ("3", "line 2 .*no JSON object"),
        ('{"id": "a", "text": "b"}', "line 2 .*conversation"),
        ('{"id": "a", "text": "\\u0000", "conversation": "c", "time": 0}', "NUL"),
        ('{"id": "a", "text": "b", "conversation": "c", "time": "9999-12-31T23:00-14:00"}', "year"),
        (
            '{"id": "a", "text": "b", "conversation": "c", "time": 0, "adapters": {"x": NaN}}',
            "adapters.x: .*finite",
        ),
        pytest.param("[" * 100_000, "not valid JSON", id="deep"),
    ],
)
async def test_a_bad_line_of_an_import_is_named(http, line, message):
    good = '{"id": "good", "text": "b", "conversation": "c", "time": "2026-05-01T10:00:00Z"}'
    response = await http.post("/v1/memory/import", content=f"{good}\n{line}\n")
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "line 2"
    assert re.search(message, error["message"])


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z"])
async def test_a_time_at_the_end_of_the_calendar_is_refused(http, time):
    said = [{"role": "user", "content": text} for text in ("One.", "Two.")]
    response = await http.post("/v1/memory", json={"messages": said, "time": time})
    assert response.status_code == 400, response.text
    assert "year" in response.json()["error"]["message"]


@pytest.mark.parametrize("field", ["user", "conversation"])
async def test_a_name_that_cannot_be_stored_is_refused(http, field):
    chat: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "Hi."}]}
    named = {"user": "a\ud800"} if field == "user" else {"kiki": {"conversation": "a\x00"}}
    for address, body in (
        ("/v1/chat/completions", chat | named),
        ("/v1/memory", {"text": "Hi.", field: "a\ud800"}),
    ):
        headers = {"content-type": "application/json"}
        response = await http.post(address, content=json.dumps(body), headers=headers)
        assert response.status_code == 400
        assert response.json()["error"]["param"].endswith(field)


async def test_memory_false_neither_reads_nor_writes(http):
    await keep(http, {"text": FACT, "user": "m-max"})
    body = {
        "model": "base",
        "user": "m-max",
        "messages": [{"role": "user", "content": "Where does my sister keep her bees?"}],
        "max_tokens": 4,
        "kiki": {"explain": True, "memory": False},
    }
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    stages = {stage["name"]: stage["decision"] for stage in answer["kiki"]["stages"]}
    assert stages["recall"] == {"memory": "off"}
    assert [one["text"] for one in await listed(http, "m-max")] == [FACT]
