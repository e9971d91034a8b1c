"""Tools, JSON, several choices, log-probabilities: what is given as the model wrote it."""

from __future__ import annotations

import json

import pytest
from openai import BadRequestError
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
ALONE = {"kiki": {"memory": False}}


def function(name: str, **properties: object) -> dict[str, object]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER = function("get_weather", city={"type": "string", "maxLength": 20})
ADD = function(
    "add",
    a={"type": "integer", "minimum": 0, "maximum": 99},
    b={"type": "integer", "minimum": 0, "maximum": 99},
)


async def ask(openai, messages=QUESTION, **fields):
    defaults = {"model": "base", "max_tokens": 200, "temperature": 0, "extra_body": ALONE}
    return await openai.chat.completions.create(messages=messages, **defaults | fields)


async def test_a_required_tool_is_called_with_arguments_of_its_schema(openai):
    answer = await ask(openai, tools=[WEATHER, ADD], tool_choice="required")
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    for call in choice.message.tool_calls:
        assert call.id.startswith("call_")
        expected = {"get_weather": {"city"}, "add": {"a", "b"}}[call.function.name]
        assert set(json.loads(call.function.arguments)) == expected


async def test_the_named_tool_is_the_one_that_is_called(openai):
    named = {"type": "function", "function": {"name": "add"}}
    answer = await ask(openai, tools=[WEATHER, ADD], tool_choice=named)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "add"


async def test_no_parallel_calls_means_one_call(openai):
    answer = await ask(
        openai, tools=[WEATHER, ADD], tool_choice="required", parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls) == 1


async def test_a_streamed_call_has_its_id_and_name_once(http):
    body = {
        "model": "base",
        "messages": QUESTION,
        "max_tokens": 200,
        "temperature": 0,
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stream": True,
        **ALONE,
    }
    lines = (await http.post("/v1/chat/completions", json=body)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    first, *rest = pieces
    assert first["id"].startswith("call_")
    assert first["type"] == "function"
    assert first["function"]["name"] == "get_weather"
    assert len(rest) > 1
    assert all(set(piece) == {"index", "function"} for piece in rest)
    assert all(set(piece["function"]) == {"arguments"} for piece in rest)
    assert {piece["index"] for piece in pieces} == {0}
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert set(json.loads(arguments)) == {"city"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_stream_calls_what_a_plain_answer_calls(openai):
    fields = {"tools": [WEATHER, ADD], "tool_choice": "required"}
    plain = (await ask(openai, **fields)).choices[0].message.tool_calls
    calls: dict[int, list[str]] = {}
    async for chunk in await ask(openai, stream=True, **fields):
        for piece in chunk.choices[0].delta.tool_calls or ():
            name, arguments = calls.setdefault(piece.index, ["", ""])
            calls[piece.index] = [
                name + (piece.function.name or ""),
                arguments + piece.function.arguments,
            ]
    assert list(calls.values()) == [[c.function.name, c.function.arguments] for c in plain]


async def test_a_tool_may_be_left_alone(openai):
    answer = await ask(openai, [{"role": "user", "content": "Say hello."}], tools=[ADD])
    (choice,) = answer.choices
    assert bool(choice.message.content) != bool(choice.message.tool_calls)
    forbidden = await ask(openai, tools=[ADD], tool_choice="none", max_tokens=8)
    assert forbidden.choices[0].message.tool_calls is None
    assert forbidden.choices[0].message.content


async def test_the_results_of_calls_go_back_to_the_model(openai):
    call = (await ask(openai, tools=[WEATHER], tool_choice="required")).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": one.id, "content": "sunny"} for one in call.tool_calls
    ]
    messages = [*QUESTION, call.model_dump(exclude_none=True), *results]
    answer = await ask(openai, messages, tools=[WEATHER], tool_choice="none", max_tokens=12)
    assert answer.choices[0].message.content
    longer = answer.usage.prompt_tokens
    alone = await ask(openai, tools=[WEATHER], tool_choice="none", max_tokens=12)
    assert longer > alone.usage.prompt_tokens


async def test_a_call_is_no_episode_but_the_answer_after_it_is(openai, http):
    async def kept() -> list[str]:
        page = (await http.get("/v1/memory", params={"user": "tooled"})).json()["data"]
        return [episode["answer"] for episode in page]

    fields = {"tools": [WEATHER], "user": "tooled", "extra_body": {}}
    call = (await ask(openai, tool_choice="required", **fields)).choices[0].message
    assert await kept() == []
    results = [
        {"role": "tool", "tool_call_id": one.id, "content": "sunny"} for one in call.tool_calls
    ]
    messages = [*QUESTION, call.model_dump(exclude_none=True), *results]
    answer = await ask(openai, messages, tool_choice="none", max_tokens=8, **fields)
    assert await kept() == [answer.choices[0].message.content]


class Color(BaseModel):
    name: str = Field(max_length=20)
    dark: bool


async def test_structured_output_is_parsed(openai):
    answer = await openai.chat.completions.parse(
        model="base",
        messages=[{"role": "user", "content": "Name a color."}],
        response_format=Color,
        max_tokens=100,
        temperature=0,
    )
    assert isinstance(answer.choices[0].message.parsed, Color)


async def test_json_object_begins_one(openai):
    answer = await ask(openai, response_format={"type": "json_object"}, max_tokens=8)
    assert answer.choices[0].message.content.lstrip().startswith("{")


async def test_several_choices_differ_by_their_seeds_and_repeat(openai):
    fields = {"n": 3, "seed": 7, "temperature": 1.2, "max_tokens": 12}
    answer = await ask(openai, **fields)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    again = [choice.message.content for choice in (await ask(openai, **fields)).choices]
    assert again == texts
    assert answer.usage.completion_tokens == 36
    streamed = ["", "", ""]
    finished = set()
    async for chunk in await ask(openai, stream=True, **fields):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.add(choice.index)
    assert streamed == texts
    assert finished == {0, 1, 2}


async def test_log_probabilities_cover_the_answer(openai):
    answer = await ask(openai, logprobs=True, top_logprobs=3, max_tokens=6)
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries).strip() == answer.choices[0].message.content
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    assert all(entry.top_logprobs[0].logprob == entry.logprob for entry in entries)
    assert all(bytes(entry.bytes).decode() == entry.token for entry in entries)
    bare = await ask(openai, logprobs=True, max_tokens=6)
    assert len(bare.choices[0].logprobs.content) == 6
    streamed = []
    stream = await ask(openai, logprobs=True, top_logprobs=3, max_tokens=6, stream=True)
    async for chunk in stream:
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]


async def test_a_bias_and_penalties_change_the_answer(openai, http):
    plain = (await ask(openai, max_tokens=12)).choices[0].message.content
    first = (await ask(openai, max_tokens=1, logprobs=True)).choices[0].logprobs.content[0].token
    body = {"prompt": first}
    (token,) = (await http.post("/tokenize", json=body)).json()["tokens"]
    biased = await ask(openai, max_tokens=12, logit_bias={str(token): -100})
    assert biased.choices[0].message.content != plain
    story = [{"role": "user", "content": "Write the word echo forty times."}]
    bare = (await ask(openai, story, max_tokens=40)).choices[0].message.content
    penalised = await ask(openai, story, max_tokens=40, frequency_penalty=2, presence_penalty=2)
    assert penalised.choices[0].message.content != bare


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [WEATHER], "tool_choice": "required"},
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
    ],
    ids=["tools", "n", "logprobs", "json"],
)
async def test_such_an_answer_takes_no_panel_and_no_revision(openai, fields):
    mix = {"shell": 1, "python": 1}
    kiki = {"memory": False, "explain": True, "adapters": mix}
    fields = {"model": "micro-kiki", "max_tokens": 8} | fields
    answer = await ask(openai, extra_body={"kiki": kiki}, **fields)
    stages = {stage["name"]: stage["decision"] for stage in answer.kiki["stages"]}
    assert answer.kiki["plan"] == "blend"
    assert "skipped" in stages["negotiate"]
    assert "skipped" in stages["antibias"]
    assert set(answer.kiki["usage"]) == {"draft"}
    for wish in ({"plan": "panel"}, {"antibias": True}, {"negotiate": True}):
        with pytest.raises(BadRequestError) as refused:
            await ask(openai, extra_body={"kiki": kiki | wish}, **fields)
        assert refused.value.param == f"kiki.{next(iter(wish))}"


async def test_usage_is_all_that_was_spent_and_is_split(openai):
    kiki = {"memory": False, "explain": True, "plan": "panel", "adapters": {"shell": 1, "sql": 1}}
    answer = await ask(openai, model="micro-kiki", max_tokens=16, extra_body={"kiki": kiki})
    parts = answer.kiki["usage"]
    assert set(parts) <= {"draft", "votes", "judge", "revision"}
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert sum(part[field] for part in parts.values()) == getattr(answer.usage, field)
    assert parts["draft"]["completion_tokens"] <= 32


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "get_wether"}},
            },
            "tool_choice.function.name",
        ),
        ({"tools": [WEATHER], "logprobs": True}, "logprobs"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [function("f", a={"type": "sausage"})]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"hello": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        (
            {"messages": [*QUESTION, {"role": "tool", "tool_call_id": "x", "content": "y"}]},
            "messages[1].tool_call_id",
        ),
        ({"messages": [{"role": "tool", "content": "y"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(http, change, param):
    body = {"model": "base", "messages": QUESTION, "max_tokens": 4} | change
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param, response.text


async def test_a_kept_reply_with_calls_is_replayed_as_a_stream(http):
    body = {
        "model": "base",
        "messages": QUESTION,
        "max_tokens": 200,
        "tools": [WEATHER],
        "tool_choice": "required",
    }
    headers = {"Idempotency-Key": "tool-key"}
    plain = (await http.post("/v1/chat/completions", json=body, headers=headers)).json()
    again = await http.post("/v1/chat/completions", json=body | {"stream": True}, headers=headers)
    chunks = [json.loads(line[6:]) for line in again.text.splitlines() if line[:7] == "data: {"]
    calls = [
        {name: call[name] for name in ("id", "type", "function")}
        for chunk in chunks
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert calls == plain["choices"][0]["message"]["tool_calls"]
