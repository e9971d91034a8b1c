"""Which answers get a second look, what it may cost, and what a caller sees of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway import plan
from gateway.api import streaming
from gateway.second_look import SecondLookPolicy
from gateway.services import Services
from gateway.turn import Options
from routing.domains import load_domains
from tests.gateway.test_plan import LOADED, TABLE, route

POLICY = SecondLookPolicy(TABLE, 1000, 30.0)
MIX = {"shell": 0.6, "python": 0.4}
PROMPT = "How do I find all files over 100 MB?"


@pytest.mark.parametrize(
    ("domains", "asked", "reviewed"),
    [
        ((), None, True),
        (("python",), None, True),
        (("shell",), None, False),
        (("shell", "python"), None, True),
        (("shell",), True, True),
        (("python",), False, False),
    ],
)
def test_the_caller_and_then_the_domain_table_say_what_is_reviewed(
    domains: tuple[str, ...], asked: bool | None, reviewed: bool
) -> None:
    decision = route(*((name, 0.9) for name in domains))
    assert POLICY.decide(Options(antibias=asked), decision).antibias is reviewed


def test_a_domain_may_ask_for_the_deep_judge() -> None:
    assert POLICY.decide(Options(), route(("math", 0.9))).deep
    assert not POLICY.decide(Options(), route(("shell", 0.9))).deep


def test_each_turn_has_a_budget_of_its_own() -> None:
    first, second = (POLICY.decide(Options(), None).budget for _ in range(2))
    first.spend(400)
    assert (first.tokens_left, second.tokens_left) == (600, 1000)


@pytest.mark.parametrize(
    ("negotiate", "expected"), [(True, "panel"), (None, "blend"), (False, "blend")]
)
def test_who_asks_for_a_negotiation_gets_a_panel(negotiate: bool | None, expected: str) -> None:
    two = route(("shell", 0.6), ("sql", 0.6))
    assert plan.choose(Options(negotiate=negotiate), two, LOADED, TABLE).plan == expected


def test_a_domain_alone_gets_no_panel_even_when_asked() -> None:
    one = route(("shell", 0.9))
    assert plan.choose(Options(negotiate=True), one, LOADED, TABLE).plan == "single"


def test_no_shipped_domain_takes_a_panel_that_nobody_measured() -> None:
    assert not any(domain.panel for domain in load_domains().domains)


async def chat(http: httpx.AsyncClient, kiki: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {
        "model": "micro-kiki",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 24,
        "temperature": 0,
        "kiki": {"explain": True, "memory": False} | kiki,
    }
    answer = await http.post("/v1/chat/completions", json=body | fields)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def stage(reply: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in reply["kiki"]["stages"] if one["name"] == name]
    decision: dict[str, Any] = found["decision"]
    return decision


async def test_a_panel_is_explained_candidate_by_candidate(
    http: httpx.AsyncClient, services: Services
) -> None:
    before = _metric(services, "kiki_catfish_considered_total")
    reply = await chat(http, {"adapters": MIX, "negotiate": True})
    shown = stage(reply, "negotiate")
    assert {
        "how", "winner", "agreement", "candidates", "votes", "judge", "audits", "catfish",
        "tokens", "note", "budget",
    } == set(shown)  # fmt: skip
    assert [one["authors"] for one in shown["candidates"]][:2] == [["shell"], ["python"]]
    assert reply["choices"][0]["message"]["content"] in [one["text"] for one in shown["candidates"]]
    assert {"fired", "why", "strength", "confidence", "critique", "outcome"} == set(
        shown["catfish"]
    )
    assert shown["budget"]["of_tokens"] == services.settings.second_look_tokens
    assert _metric(services, "kiki_catfish_considered_total") == before + 1


async def test_a_panel_whose_negotiation_is_off_is_not_voted_on(http: httpx.AsyncClient) -> None:
    reply = await chat(http, {"adapters": MIX, "plan": "panel", "negotiate": False})
    assert "switched off" in stage(reply, "negotiate")["skipped"]


async def test_a_single_answer_pays_nothing(http: httpx.AsyncClient) -> None:
    reply = await chat(http, {}, model="shell")
    assert stage(reply, "negotiate") == {"skipped": "one candidate"}
    assert reply["usage"]["completion_tokens"] <= 24


async def test_a_held_stream_opens_at_once_is_kept_alive_and_says_what_a_plain_answer_says(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "OPEN_AFTER_S", 0.0)
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    asked = {"adapters": MIX, "negotiate": True}
    plain = await chat(http, asked)
    body = {
        "model": "micro-kiki",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 24,
        "temperature": 0,
        "stream": True,
        "kiki": {"explain": True, "memory": False} | asked,
    }
    stream = (await http.post("/v1/chat/completions", json=body)).text
    events = [event for event in stream.split("\n\n") if event]
    kept = [place for place, event in enumerate(events) if event == ": keep-alive"]
    chunks = [
        (place, json.loads(event.removeprefix("data: ")))
        for place, event in enumerate(events)
        if event.startswith("data: {")
    ]
    texts = [
        (place, chunk["choices"][0]["delta"]["content"])
        for place, chunk in chunks
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content")
    ]
    assert kept
    assert max(kept) < texts[0][0]
    assert "".join(text for _, text in texts) == plain["choices"][0]["message"]["content"]
    assert stage(chunks[-1][1], "negotiate")["how"] == stage(plain, "negotiate")["how"]


def _metric(services: Services, name: str) -> float:
    return services.telemetry.registry.get_sample_value(name) or 0.0
