"""`POST /v1/route`: conversations, explanations, and what is no prompt at all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.advising import build_advisor
from gateway.settings import load_settings
from kiki.errors import SettingsError
from routing.domains import load_domains

TALK = [
    {"role": "user", "content": "Write a Python function that counts the words of a file"},
    {"role": "assistant", "content": "def count(path): return len(open(path).read().split())"},
]
ODD = {
    "emoji": "🙂🙃🎉",
    "zero width": "\u200b\u200b",
    "binary": "\x00\x01\x02\xff" * 64,
    "a command": "route me to python",
    "special tokens": "<s></s><mask>",
    "a megabyte": "word " * 190_000,
    "one word of a megabyte": "a" * 990_000,
}


async def route(http, **body):
    return await http.post("/v1/route", json=body)


async def test_a_conversation_is_routed_by_its_last_turn_with_what_came_before(http):
    kept = (await route(http, messages=[*TALK, {"role": "user", "content": "why?"}])).json()
    assert kept["query"] == "why?"
    assert kept["domains"][0]["name"] == "python"
    assert (await route(http, query="why?")).json()["fallback"] is True
    moved = await route(http, messages=[*TALK, {"role": "user", "content": "now in Rust"}])
    assert moved.json()["domains"][0]["name"] == "rust"


async def test_an_explanation_has_every_number_behind_the_decision(http, services):
    body = {"messages": [*TALK, {"role": "user", "content": "why?"}], "explain": True}
    answer = (await http.post("/v1/route", json=body)).json()
    why = answer["explain"]
    assert why["scores"][0]["name"] == answer["domains"][0]["name"]
    assert {score["name"] for score in why["scores"]} == set(services.table.outputs)
    assert sum(share["weight"] for share in why["shares"]) == pytest.approx(1, abs=1e-4)
    assert why["threshold"] > 0
    assert why["conversation"]["together"] == "python"
    assert why["conversation"]["share"] > 0.5
    assert len(why["nearest"]) == 5
    assert why["advised"] is False
    assert "explain" not in (await route(http, query="why?")).json()


async def test_the_pipeline_routes_a_follow_up_the_same_way(http):
    body = {
        "model": "micro-kiki",
        "messages": [*TALK, {"role": "user", "content": "why?"}],
        "max_tokens": 1,
        "raw_mode": True,
        "kiki": {"explain": True},
    }
    answer = (await http.post("/v1/chat/completions", json=body)).json()["kiki"]
    assert answer["domains"][0] == "python"
    assert (
        "last turn" in answer["stages"][0]["decision"]["conversation"]
        or "moved" in (answer["stages"][0]["decision"]["conversation"])
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": "a", "messages": TALK}, "query"),
        ({"messages": []}, "messages"),
        ({"messages": TALK[1:]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"query": "   "}, "query"),
        ({"query": ["a", "\n"]}, "query[1]"),
        ({"query": "a" * 1_000_001}, "query"),
    ],
)
async def test_what_asks_nothing_is_refused_by_its_place(http, body, param):
    response = await http.post("/v1/route", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_nothing_to_route_is_told_what_to_give(http):
    error = (await http.post("/v1/route", json={})).json()["error"]
    assert "query" in error["message"]
    assert "messages" in error["message"]
    assert "Leave" not in error["message"]


@pytest.mark.parametrize("kind", ODD)
async def test_odd_texts_have_a_valid_answer(http, kind):
    answer = await route(http, query=ODD[kind])
    assert answer.status_code == 200
    body = answer.json()
    assert body["fallback"] is (body["domains"] == [])


async def test_half_a_surrogate_pair_is_refused_by_its_place(http):
    json_type = {"content-type": "application/json"}
    for raw, param in (
        ('{"query": "half \\ud800 a pair"}', "query"),
        ('{"messages": [{"role": "user", "content": "\\udfff"}]}', "messages[0].content"),
    ):
        response = await http.post("/v1/route", content=raw, headers=json_type)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(text=st.text(max_size=80))
async def test_any_text_is_routed_or_refused(http, text):
    response = await route(http, query=text, explain=True)
    assert response.status_code == (200 if text.strip() else 400)


def test_no_advisor_is_asked_for_by_default(monkeypatch):
    monkeypatch.delenv("NERVE_WML_ENABLED", raising=False)
    assert build_advisor(load_settings(), load_domains(), lambda text: []) is None


def test_the_seeds_variables_ask_for_its_advisor(monkeypatch):
    monkeypatch.setenv("NERVE_WML_ENABLED", "1")
    counted: list[str] = []
    advisor = build_advisor(load_settings(), load_domains(), lambda text: [], counted.append)
    assert advisor is not None
    assert advisor.advice("not installed here") is None
    assert counted == ["missing"]
    monkeypatch.setenv("NERVE_WML_ALPHA", "1.5")
    with pytest.raises(SettingsError, match=r"NERVE_WML_ALPHA = '1.5'"):
        build_advisor(load_settings(), load_domains(), lambda text: [])


def test_an_advisor_that_is_no_function_path_is_refused_at_start():
    with pytest.raises(SettingsError, match="advisor"):
        load_settings(advisor="no colon")
