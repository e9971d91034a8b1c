from __future__ import annotations

import asyncio

from kiki.errors import StoreUnavailableError
from memory import Aeon

FACT = "My sister Margarethe keeps bees in Toulouse and sells the honey on Saturdays."
QUESTION = "Where does my sister keep her bees?"


async def say(http, text: str, person: str, **kiki):
    body = {
        "model": "base",
        "user": person,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 0,
        "kiki": {"explain": True} | kiki,
    }
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response


def recalled(response) -> list[str]:
    stages = {stage["name"]: stage["decision"] for stage in response.json()["kiki"]["stages"]}
    return [episode["user"] for episode in stages["recall"].get("episodes", [])]


async def test_a_second_conversation_recalls_the_first_ones_fact_and_only_its_users(http):
    await say(http, FACT, "anna", conversation="first")
    second = await say(http, QUESTION, "anna", conversation="second")
    assert FACT in recalled(second)
    stranger = await say(http, QUESTION, "boris", conversation="second")
    assert FACT not in recalled(stranger)


async def test_what_is_recalled_reaches_the_prompt(http):
    await say(http, FACT, "clara", conversation="first")
    with_notes = await say(http, QUESTION, "clara", conversation="second")
    without = await say(http, QUESTION, "clara", conversation="third", memory=False)
    tokens = [r.json()["usage"]["prompt_tokens"] for r in (with_notes, without)]
    assert tokens[0] > tokens[1] + 20


async def test_memory_off_neither_reads_nor_writes(http):
    await say(http, FACT, "dora", conversation="first", memory=False)
    assert recalled(await say(http, QUESTION, "dora", conversation="second")) == []
    silent = await say(http, FACT, "dora", conversation="third", memory=False)
    assert silent.headers["x-kiki-memory"] == "off"


async def test_an_idempotent_repeat_leaves_one_episode(http, services):
    body = {
        "model": "base",
        "user": "emil",
        "messages": [{"role": "user", "content": FACT}],
        "max_tokens": 2,
        "kiki": {"conversation": "once"},
    }
    for _ in range(3):
        await http.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": "emil-1"})
    from memory import Owner

    assert len(services.aeon.episodes(Owner("local", "emil"), "once")) == 1


async def test_a_store_that_is_down_costs_the_recall_and_not_the_answer(
    http, services, monkeypatch
):
    def down(*args: object, **kwargs: object) -> None:
        raise StoreUnavailableError("Atlas does not answer.")

    await say(http, FACT, "frida", conversation="first")
    monkeypatch.setattr(Aeon, "recall", down)
    response = await say(http, QUESTION, "frida", conversation="second")
    assert response.headers["x-kiki-memory"] == "unavailable"
    assert response.json()["kiki"]["memory"] == "unavailable"
    assert response.json()["choices"][0]["message"]["content"]
    monkeypatch.undo()
    assert await asyncio.to_thread(services.aeon.drain, 30)
    again = await say(http, "Where do my sister's bees live?", "frida", conversation="third")
    assert {FACT, QUESTION} <= set(recalled(again))
