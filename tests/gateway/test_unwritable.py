"""What JSON in a body may hold, and no answer or engine can be told: refused by name."""

from __future__ import annotations

import json

import pytest

HALF, NAN = "\ud800", float("nan")
CHAT = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
RESPONSE = {"model": "base", "input": "hi", "max_output_tokens": 2}
TOKENIZE = {"messages": CHAT["messages"]}


def tools(parameters: object) -> dict[str, object]:
    return {"tools": [{"type": "function", "function": {"name": "a", "parameters": parameters}}]}


def schema(value: object) -> dict[str, object]:
    named = {"name": "a", "schema": {"type": "object", "properties": {"a": {"const": value}}}}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", CHAT | {"stop": [HALF]}, "stop"),
        ("/v1/chat/completions", CHAT | tools({"description": HALF}), "tools"),
        ("/v1/chat/completions", CHAT | tools({"minimum": NAN}), "tools"),
        ("/v1/chat/completions", CHAT | schema(HALF), "response_format"),
        ("/v1/chat/completions", CHAT | schema(NAN), "response_format"),
        ("/v1/chat/completions", CHAT | {"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        (
            "/v1/chat/completions",
            CHAT | {"model": "micro-kiki", "kiki": {"adapters": {HALF: 1}}},
            "kiki.adapters",
        ),
        ("/v1/responses", RESPONSE | {"metadata": {"a": HALF}}, "metadata"),
        (
            "/v1/responses",
            RESPONSE | {"text": {"format": {"description": HALF}}},
            "text.format.description",
        ),
        (
            "/v1/responses",
            RESPONSE | {"tools": [{"type": "function", "name": "a", "parameters": {"a": HALF}}]},
            "tools",
        ),
        ("/tokenize", TOKENIZE | tools({"description": HALF}), "tools"),
    ],
)
async def test_halves_of_characters_and_no_numbers_are_refused(http, path, body, param):
    headers = {"content-type": "application/json"}
    answer = await http.post(path, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
