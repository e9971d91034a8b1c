"""The memory sleeps while the gateway serves, and what that finds can be seen."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.asking import asking
from gateway.settings import load_settings
from gateway.sleeping import sleeping
from memory import Aeon, Owner
from memory.cerebellum import Cerebellum
from memory.fact_log import Learnt
from memory.facts import Fact
from tests.memory import parts

LONG_AGO = datetime.now(UTC) - timedelta(days=400)
TALK = [
    "The pump in the greenhouse leaks again.",
    "The greenhouse pump leaks at the seal.",
    "We replaced the seal of the greenhouse pump.",
]


async def remember(http, user: str) -> None:
    items = [
        {"text": text, "user": user, "conversation": user, "time": LONG_AGO.isoformat()}
        for text in TALK
    ]
    assert (await http.post("/v1/memory", json=items, params={"wait": True})).status_code == 200


async def test_a_gateway_that_runs_sleeps_when_it_is_asked(http, services):
    await remember(http, "ilse")
    assert await asyncio.to_thread(services.aeon.knowledge.drain, 60)

    async def night(dry_run: bool) -> Any:
        answer = await http.post("/v1/admin/memory/sleep", params={"dry_run": dry_run})
        assert answer.status_code == 200
        *progress, report = map(json.loads, answer.text.splitlines())
        assert {line["object"] for line in progress} == {"memory.sleep.progress"}
        assert progress[-1]["done"] == progress[-1]["total"] == len(progress)
        assert report["object"] == "memory.sleep.report"
        (own,) = [one for one in report["owners"] if one["owner"]["user"] == "ilse"]
        return own

    dry = await night(dry_run=True)
    summaries = {"kind": "summaries", "user": "ilse"}
    assert (await http.get("/v1/memory", params=summaries)).json()["data"] == []
    assert (await night(dry_run=False))["summarised"] == dry["summarised"] != []
    (summary,) = (await http.get("/v1/memory", params=summaries)).json()["data"]
    assert "pump" in summary["text"]


async def test_a_sleep_that_fails_says_so(http, services, monkeypatch: pytest.MonkeyPatch):
    def fails(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("a defect of the memory's own")

    monkeypatch.setattr(services.aeon.knowledge, "sleep", fails)
    with pytest.raises(ZeroDivisionError):
        await services.nights.sleep()
    answer = await http.post("/v1/admin/memory/sleep")
    (line,) = answer.text.splitlines()
    assert json.loads(line)["error"]["type"] == "server_error"


async def test_the_schedule_sleeps_while_the_memory_is_used(
    tmp_path: Path, services, monkeypatch: pytest.MonkeyPatch
):
    embedder = services.embedder
    aeon = Aeon(tmp_path / "memory", embedding_id=embedder.id, embed=embedder.embed)
    aeon.open()
    for text in TALK:
        aeon.write(parts.episode(text, created=LONG_AGO), None)
    assert await asyncio.to_thread(aeon.drain, 60)
    monkeypatch.setattr("gateway.sleeping.until", lambda *_: 0.01)
    async with sleeping(aeon, load_settings(sleep_at="1h"), None):
        while not aeon.rights.summaries(parts.ALICE):
            aeon.write(parts.episode("And another thing."), None)
            await asyncio.sleep(0.01)
    (summary,) = aeon.rights.summaries(parts.ALICE)
    assert len(summary.members) == len(TALK)
    await asyncio.to_thread(aeon.close)


async def test_facts_that_contradict_each_other_are_listed(http, services):
    aeon, owner = services.aeon, Owner("local", "jutta")
    await remember(http, "jutta")
    source = aeon.episodes(owner, "jutta")[0]
    assert await asyncio.to_thread(aeon.knowledge.drain, 60)
    journal = aeon._parts()[0]
    for number, text in enumerate(["My dog is called Max.", "My dog is called Rex."]):
        since = LONG_AGO + timedelta(days=number)
        fact = Fact(f"jutta-{number}", owner, text, (), source.id, since, None, since, None)
        learnt = Learnt(((fact, services.embedder.embed([text])[0]),))
        journal.facts.learn(learnt, up_to=journal.last_seq(), now=LONG_AGO)
    assert (await http.post("/v1/admin/memory/sleep")).status_code == 200
    params = {"kind": "facts", "conflicts": True, "user": "jutta"}
    told = (await http.get("/v1/memory", params=params)).json()["data"]
    assert {one["id"]: one["conflicts"] for one in told} == {
        "jutta-0": ["jutta-1"],
        "jutta-1": ["jutta-0"],
    }
    one = (await http.get("/v1/memory/jutta-0", params={"user": "jutta"})).json()
    assert one["conflicts"] == ["jutta-1"]
    refused = await http.get("/v1/memory", params={"conflicts": True})
    assert refused.status_code == 400


async def test_what_the_cerebellum_does_is_in_health_and_metrics(http, services):
    await http.post("/v1/memory", json={"text": "I live in Rome.", "user": "karl"})
    assert await asyncio.to_thread(services.aeon.knowledge.drain, 60)
    told = (await http.get("/health")).json()["memory"]["cerebellum"]
    assert (told["lag"], told["last_error"]) == (0, None)
    assert told["decisions"]["rules"] >= 1
    metrics = (await http.get("/metrics")).text
    assert 'kiki_cerebellum_decisions_total{by="rules"}' in metrics
    assert "kiki_cerebellum_lag_episodes 0.0" in metrics


async def test_the_engine_that_serves_decides_where_it_is_named(services):
    async with asking(load_settings(cerebellum="engine"), services.engine) as ask:
        cerebellum = Cerebellum(ask, timeout_s=300)
        kept = await asyncio.to_thread(cerebellum.memorize, "I live in Rome.")
    # A model as small as the test's may write no JSON within its tokens.
    assert cerebellum.counts in ({"model": 1}, {"junk": 1, "rules": 1})
    assert {one.text for one in kept} <= {"I live in Rome."}
