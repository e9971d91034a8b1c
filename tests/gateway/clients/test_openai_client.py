"""OpenAI's synchronous client over a socket; the asynchronous one runs in the tests beside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "Name a color."}]


class Color(BaseModel):
    name: str = Field(max_length=20)


@pytest.fixture(scope="module")
def client(base_url) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def test_chat_streamed_and_whole_say_the_same(client):
    fields = {"model": "base", "messages": QUESTION, "max_tokens": 8}
    whole = client.chat.completions.create(**fields).choices[0].message.content
    stream = client.chat.completions.create(**fields, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole


def test_the_stream_helper_puts_calls_together(client):
    class Weather(BaseModel):
        city: str = Field(max_length=20)

    from openai import pydantic_function_tool

    with client.chat.completions.stream(
        model="base",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
    ) as stream:
        for _ in stream:
            pass
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_structured_output_is_parsed(client):
    answer = client.chat.completions.parse(
        model="base", messages=QUESTION, response_format=Color, max_tokens=60
    )
    assert isinstance(answer.choices[0].message.parsed, Color)


def test_responses_go_on_from_each_other(client):
    first = client.responses.create(model="base", input="Name a color.", max_output_tokens=8)
    second = client.responses.create(
        model="base", input="Another.", previous_response_id=first.id, max_output_tokens=8
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    client.responses.delete(first.id)


def test_models_completions_and_embeddings_are_there(client):
    assert "base" in [model.id for model in client.models.list()]
    assert client.completions.create(model="base", prompt="1, 2,", max_tokens=3).choices[0].text
    made = client.embeddings.create(model="all-mpnet-base-v2", input="a text")
    assert len(made.data[0].embedding) == 768


def test_a_refusal_names_its_field(client):
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model="base", messages=QUESTION, temperature=9)
    assert refused.value.param == "temperature"
    assert refused.value.request_id
