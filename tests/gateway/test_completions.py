from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from openai import BadRequestError, NotFoundError

FRANCE = "The capital of France is"
ROME = "The capital of Italy is"


async def complete(openai, prompt: str | list[str] = FRANCE, **fields):
    defaults = {"model": "base", "max_tokens": 6, "temperature": 0}
    return await openai.completions.create(prompt=prompt, **defaults | fields)


async def test_a_text_is_continued_without_a_chat_template(openai):
    answer = await complete(openai)
    assert answer.object == "text_completion"
    assert "Paris" in answer.choices[0].text
    assert answer.usage.prompt_tokens < 10
    assert answer.usage.completion_tokens == 6
    assert answer.choices[0].finish_reason == "length"


async def test_several_prompts_and_choices_are_numbered_in_order(openai):
    answer = await complete(openai, [FRANCE, ROME], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] == (await complete(openai)).choices[0].text
    assert texts[2] == texts[3] != texts[0]
    assert answer.usage.completion_tokens == 24


async def test_a_stream_says_what_a_plain_answer_says(openai):
    plain = [choice.text for choice in (await complete(openai, [FRANCE, ROME])).choices]
    stream = await complete(
        openai, [FRANCE, ROME], stream=True, stream_options={"include_usage": True}
    )
    texts, finished = ["", ""], {}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                finished[choice.index] = choice.finish_reason
    assert texts == plain
    assert finished == {0: "length", 1: "length"}
    assert chunk.usage.completion_tokens == 12


async def test_log_probabilities_are_listed_by_token(openai):
    answer = await complete(openai, logprobs=2)
    listed = answer.choices[0].logprobs
    assert "".join(listed.tokens) == answer.choices[0].text
    assert listed.text_offset[:2] == [0, len(listed.tokens[0])]
    assert all(len(top) == 2 for top in listed.top_logprobs)
    assert all(value <= 0 for value in listed.token_logprobs)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": [1, 2]}, "prompt[0]"),
        ({"prompt": []}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"logprobs": 6}, "logprobs"),
        ({"kiki": {"plan": "panel"}}, "kiki.plan"),
        ({"kiki": {"negotiate": True}}, "kiki.negotiate"),
        ({"kiki": {"antibias": True}}, "kiki.antibias"),
        ({"kiki": {"explain": True}}, "kiki.explain"),
        ({"kiki": {"conversation": "c"}}, "kiki.conversation"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(http, change, param):
    body = {"model": "base", "prompt": FRANCE, "max_tokens": 2} | change
    response = await http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_embeddings_are_the_routers_in_numbers_and_in_base64(openai, services):
    texts = ["list hidden files", "a lovely day"]
    answer = await openai.embeddings.create(
        model="all-mpnet-base-v2", input=texts, encoding_format="float"
    )
    assert [item.index for item in answer.data] == [0, 1]
    expected = services.embedder.embed(texts)
    np.testing.assert_array_equal([item.embedding for item in answer.data], expected)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens == 5 + 5
    # The client asks for base64 by itself, and reads it.
    encoded = await openai.embeddings.create(model="all-mpnet-base-v2", input=texts[0])
    np.testing.assert_array_equal(encoded.data[0].embedding, expected[0])


async def test_base64_is_float32_as_openai_writes_it(http):
    body = {"model": "all-mpnet-base-v2", "input": "x", "encoding_format": "base64"}
    item = (await http.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    vector = np.frombuffer(base64.b64decode(item), "<f4")
    assert vector.shape == (768,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)


async def test_embeddings_refuse_what_they_would_cut_or_cannot_make(openai):
    async def embed(**fields):
        return await openai.embeddings.create(
            **{"model": "all-mpnet-base-v2", "input": "x"} | fields
        )

    with pytest.raises(NotFoundError, match="all-mpnet-base-v2"):
        await embed(model="text-embedding-3-small")
    wrong: list[dict[str, object]] = [
        {"dimensions": 256},
        {"input": "word " * 400},
        {"input": ""},
        {"input": []},
    ]
    for fields in wrong:
        with pytest.raises(BadRequestError):
            await embed(**fields)
    assert (await embed(dimensions=768)).data


async def test_tokenize_counts_a_text_and_a_conversation(http):
    text = (await http.post("/tokenize", json={"prompt": FRANCE, "return_token_strs": True})).json()
    assert "".join(text["token_strs"]) == FRANCE
    assert text["count"] == len(text["tokens"]) == 5
    assert text["max_model_len"] == 2048
    messages = [{"role": "user", "content": "hi"}]
    asked = (await http.post("/tokenize", json={"messages": messages})).json()["count"]
    chat = {"model": "base", "messages": messages, "max_tokens": 1, "kiki": {"memory": False}}
    answer = (await http.post("/v1/chat/completions", json=chat)).json()
    assert answer["usage"]["prompt_tokens"] == asked
    body = {"messages": messages, "add_generation_prompt": False}
    assert (await http.post("/tokenize", json=body)).json()["count"] < asked


async def test_tokenize_counts_tools_too(http):
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"type": "function", "function": {"name": "now"}}]
    without = (await http.post("/tokenize", json={"messages": messages})).json()["count"]
    response = await http.post("/tokenize", json={"messages": messages, "tools": tools})
    assert response.json()["count"] > without
    chat = {
        "model": "base",
        "messages": messages,
        "tools": tools,
        "max_tokens": 1,
        "kiki": {"memory": False},
    }
    answer = (await http.post("/v1/chat/completions", json=chat)).json()
    assert answer["usage"]["prompt_tokens"] == response.json()["count"]


async def test_tokenize_refuses_both_and_neither(http):
    both = {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}
    tools = [{"type": "function", "function": {"name": "a"}}]
    template = {"chat_template_kwargs": {"enable_thinking": False}}
    alone = {"add_special_tokens": False}, {"tools": tools}, template
    for body in ({}, both, *({"prompt": "a"} | fields for fields in alone)):
        assert (await http.post("/tokenize", json=body)).status_code == 400
    assert (await http.post("/tokenize", json={"prompt": "a", "model": "nix"})).status_code == 404


async def test_live_and_ready_say_one_word(http):
    assert (await http.get("/health/live")).json() == {"status": "ok"}
    assert (await http.get("/health/ready")).json() == {"status": "ready"}


async def test_a_stream_ends_in_done(http):
    body = {"model": "base", "prompt": FRANCE, "max_tokens": 2, "stream": True}
    lines = (await http.post("/v1/completions", json=body)).text.strip().splitlines()
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0][6:])["id"].startswith("cmpl-")
