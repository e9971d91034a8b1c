from __future__ import annotations

import asyncio
import json
from urllib.parse import unquote

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError

STAGES = ["route", "mount", "recall", "infer", "negotiate", "antibias", "write"]
PROMPT = "How do I find all files over 100 MB?"
BOTH = "Write a bash script that runs an SQL query on a sqlite database and prints the rows."


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def ask(openai, text=PROMPT, model="micro-kiki", kiki=None, **fields):
    defaults = {"max_tokens": 16, "temperature": 0}
    body = {"kiki": kiki} if kiki else {}
    return await openai.chat.completions.create(
        model=model, messages=user(text), extra_body=body, **defaults | fields
    )


async def test_the_same_prompt_gives_three_texts_and_base_stays_itself(openai):
    options = {"kiki": {"memory": False}, "max_tokens": 40}
    before = (await ask(openai, model="base", **options)).choices[0].message.content
    shell = (await ask(openai, model="shell", **options)).choices[0].message.content
    python = (await ask(openai, model="python", **options)).choices[0].message.content
    after = (await ask(openai, model="base", **options)).choices[0].message.content
    assert len({before, shell, python}) == 3
    assert after == before


async def test_explain_shows_seven_stages_with_times_in_order(openai):
    answer = await ask(openai, kiki={"explain": True})
    kiki = answer.kiki
    assert [stage["name"] for stage in kiki["stages"]] == STAGES
    assert all(stage["ms"] >= 0 for stage in kiki["stages"])
    assert kiki["plan"] in ("single", "blend", "panel")
    assert kiki["gateway_ms"] > 0


async def test_without_explain_the_answer_is_plain_openai(openai):
    assert "kiki" not in (await ask(openai)).model_dump()


async def test_a_prompt_of_two_domains_mounts_two_adapters(openai):
    answer = await ask(openai, BOTH, kiki={"explain": True})
    assert {"shell", "sql"} <= set(answer.kiki["adapters"])
    assert answer.kiki["plan"] == "blend"


async def test_usage_and_finish_reason_are_the_engines_own(openai):
    alone = {"memory": False}
    short = await ask(openai, "Say hello.", model="base", max_tokens=3, kiki=alone)
    assert short.usage.completion_tokens == 3
    assert short.usage.total_tokens == short.usage.prompt_tokens + 3
    assert short.choices[0].finish_reason == "length"
    longer = await ask(openai, "Say hello " * 20, model="base", max_tokens=3, kiki=alone)
    assert longer.usage.prompt_tokens > short.usage.prompt_tokens + 30


async def test_a_stop_string_ends_the_answer(openai):
    options = {"model": "base", "max_tokens": 40, "kiki": {"memory": False}}
    whole = await ask(openai, "Count from one to five.", **options)
    word = whole.choices[0].message.content.split()[2]
    stopped = await ask(openai, "Count from one to five.", stop=word, **options)
    assert word not in stopped.choices[0].message.content
    assert stopped.choices[0].finish_reason == "stop"


async def test_a_stream_has_one_id_a_role_first_and_usage_last(openai):
    stream = await ask(
        openai, model="base", max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 3


async def test_a_stream_says_what_a_plain_answer_says(openai):
    options = {"model": "shell", "kiki": {"memory": False}, "max_tokens": 24}
    plain = (await ask(openai, **options)).choices[0].message.content
    stream = await ask(openai, **options, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == plain


async def test_a_streamed_explanation_comes_in_the_last_chunk(openai):
    stream = await ask(openai, stream=True, kiki={"explain": True})
    chunks = [chunk async for chunk in stream]
    assert [stage["name"] for stage in chunks[-1].kiki["stages"]] == STAGES


async def test_a_panel_writes_a_candidate_an_adapter_and_negotiates(openai):
    kiki = {"explain": True, "plan": "panel", "adapters": {"shell": 0.6, "python": 0.4}}
    answer = await ask(openai, kiki=kiki)
    stages = {stage["name"]: stage["decision"] for stage in answer.kiki["stages"]}
    assert [c["adapters"] for c in stages["infer"]["candidates"]] == ["shell", "python"]
    assert stages["negotiate"]["how"] in (
        "identical",
        "agreement",
        "consensus",
        "attending",
        "arbitration",
        "dissent",
        "budget",
    )
    assert answer.choices[0].message.content


async def test_a_streamed_panel_opens_at_once_and_fills_after(openai):
    kiki = {"plan": "panel", "adapters": {"shell": 1, "python": 1}}
    stream = await ask(openai, kiki=kiki, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text


async def test_the_callers_mix_is_what_is_mounted(openai):
    mix = {"shell": 0.7, "python": 0.3}
    answer = await ask(openai, kiki={"explain": True, "adapters": mix})
    assert answer.kiki["adapters"] == mix
    assert answer.kiki["plan"] == "blend"


async def test_a_domain_without_an_adapter_runs_on_the_base_and_says_so(http, openai):
    body = {"model": "rust", "messages": user("Explain borrowing."), "max_tokens": 4}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    assert response.headers["x-kiki-adapters"] == "base"
    assert response.headers["x-kiki-base-only"] == "rust"


async def test_headers_say_what_happened(http):
    body = {"model": "micro-kiki", "messages": user(PROMPT), "max_tokens": 4}
    headers = (await http.post("/v1/chat/completions", json=body)).headers
    assert "shell" in headers["x-kiki-adapters"]
    assert headers["x-kiki-plan"] in ("single", "blend")
    assert headers["x-kiki-memory"] == "ok"
    assert headers["x-request-id"].startswith("chatcmpl-")


@pytest.mark.parametrize(
    ("change", "param", "status"),
    [
        ({"messages": []}, "messages", 400),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages[0].content", 400),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", 400),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", 400),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, "messages[0].content", 400),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages", 400),
        ({"model": "shel"}, "model", 404),
        ({"temperature": 3}, "temperature", 400),
        ({"max_tokens": 0}, "max_tokens", 400),
        ({"max_tokens": "many"}, "max_tokens", 400),
        ({"tools": [{"type": "function"}]}, "tools[0].function", 400),
        ({"functions": [{"name": "f"}]}, "functions", 400),
        ({"n": 9}, "n", 400),
        ({"messages": [user("x")[0] | {"cache_control": {}}]}, "messages[0].cache_control", 400),
        ({"temprature": 1}, "temprature", 400),
        ({"kiki": {"plann": "single"}}, "kiki.plann", 400),
        ({"kiki": {"plan": "quick"}}, "kiki.plan", 400),
        ({"kiki": {"adapters": {"shel": 1}}}, "kiki.adapters.shel", 404),
        ({"kiki": {"adapters": {"shell": "0.5"}}}, "kiki.adapters.shell", 400),
        ({"kiki": {"adapters": dict.fromkeys("abcde", 1)}}, "kiki.adapters", 400),
        ({"model": "base", "kiki": {"adapters": {"shell": 1}}}, "kiki.adapters", 400),
        ({"kiki": {"threshold": 2}}, "kiki.threshold", 400),
    ],
)
async def test_a_bad_field_is_named(http, change, param, status):
    body = {"model": "micro-kiki", "messages": user("hi"), "max_tokens": 4} | change
    response = await http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


async def test_bodies_that_are_no_json_or_hold_no_number_get_400(http):
    for content in (b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b""):
        response = await http.post(
            "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400, content
        assert response.json()["error"]["message"]
    weights = (
        b'{"model": "micro-kiki", "messages": [{"role": "user", "content": "hi"}],'
        b' "kiki": {"adapters": {"shell": NaN}}}'
    )
    response = await http.post(
        "/v1/chat/completions", content=weights, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400


async def test_the_openai_client_raises_its_own_errors(openai):
    with pytest.raises(NotFoundError, match="Did you mean shell"):
        await ask(openai, model="shel")
    with pytest.raises(BadRequestError):
        await ask(openai, temperature=9)


async def test_unknown_paths_and_methods_get_the_envelope(http):
    assert (await http.get("/v1/nothing")).json()["error"]["code"] == "not_found"
    response = await http.get("/v1/chat/completions")
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "method_not_allowed"


async def test_a_repeat_with_the_same_key_is_answered_once(http, services):
    body = {"model": "base", "messages": user("A number?"), "max_tokens": 6, "temperature": 1}
    headers = {"Idempotency-Key": "key-1"}

    async def post(**change):
        return await http.post("/v1/chat/completions", json=body | change, headers=headers)

    first, second = await asyncio.gather(post(), post())
    assert first.json() == second.json()
    replays = [r for r in (first, second) if r.headers.get("x-kiki-replayed")]
    assert len(replays) == 1
    text = first.json()["choices"][0]["message"]["content"]
    streamed = (await post(stream=True)).text
    pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert pieces[1]["choices"][0]["delta"]["content"] == text
    conflict = await post(max_tokens=7)
    assert conflict.status_code == 409
    assert conflict.json()["error"]["code"] == "idempotency_conflict"


async def test_a_key_that_is_too_long_is_refused(http):
    body = {"model": "base", "messages": user("hi"), "max_tokens": 2}
    headers = {"Idempotency-Key": "k" * 256}
    response = await http.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Idempotency-Key"


async def test_a_repeat_with_explain_has_seven_stages_too(http):
    body = {"model": "base", "messages": user("Again?"), "max_tokens": 2, "kiki": {"explain": True}}
    headers = {"Idempotency-Key": "key-2"}
    for _ in range(2):
        reply = await http.post("/v1/chat/completions", json=body, headers=headers)
        assert [stage["name"] for stage in reply.json()["kiki"]["stages"]] == STAGES


async def test_a_seed_repeats_and_a_temperature_counts(openai):
    options = {"model": "base", "max_tokens": 16, "temperature": 1.2, "kiki": {"memory": False}}

    async def text(seed: int) -> str:
        answer = await ask(openai, "Tell me a story.", seed=seed, **options)
        return str(answer.choices[0].message.content)

    assert await text(5) == await text(5)
    assert await text(5) != await text(6)


async def test_an_odd_conversation_name_is_kept_and_its_header_encoded(http):
    name = "été\r\nx-evil: 1 "
    body = {"model": "base", "messages": user("hi"), "max_tokens": 2}
    body |= {"kiki": {"conversation": name, "explain": True}}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.json()["kiki"]["conversation"] == name
    assert unquote(response.headers["x-kiki-conversation"]) == name
    assert "x-evil" not in response.headers


async def test_a_held_stream_is_refused_with_a_status_too(http):
    body = {
        "model": "micro-kiki",
        "messages": user("word " * 9000),
        "stream": True,
        "kiki": {"plan": "panel", "adapters": {"shell": 1, "python": 1}},
    }
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_every_answer_and_every_refusal_has_a_request_id(http):
    body = {"model": "base", "messages": user("hi"), "max_tokens": 2}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-request-id"] == answer.json()["id"]
    refusal = await http.post("/v1/chat/completions", json=body | {"model": "nix"})
    assert refusal.headers["x-request-id"]


async def test_raw_mode_is_routing_mount_and_inference_only(http):
    body = {
        "model": "micro-kiki",
        "messages": user(PROMPT),
        "max_tokens": 2,
        "raw_mode": True,
        "kiki": {"explain": True},
    }
    kiki = (await http.post("/v1/chat/completions", json=body)).json()["kiki"]
    decisions = {stage["name"]: stage["decision"] for stage in kiki["stages"]}
    assert kiki["memory"] == "off"
    assert decisions["recall"] == decisions["write"] == {"memory": "off"}
    assert "skipped" in decisions["negotiate"]
    assert "skipped" in decisions["antibias"]


async def test_a_developer_message_and_text_parts_are_understood(openai):
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "yes."}]
    answer = await openai.chat.completions.create(
        model="base",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts},
        ],
        max_tokens=4,
    )
    assert answer.choices[0].message.content
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(APIStatusError, match="messages"):
        await openai.chat.completions.create(
            model="base", messages=[{"role": "user", "content": image}]
        )
