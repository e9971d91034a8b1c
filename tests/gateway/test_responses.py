from __future__ import annotations

import json

import pytest
from openai import BadRequestError, NotFoundError
from pydantic import BaseModel, Field

PROMPT = "Name a color."
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


async def ask(openai, text=PROMPT, **fields):
    defaults = {"model": "base", "max_output_tokens": 8, "temperature": 0}
    return await openai.responses.create(input=text, **defaults | fields)


async def test_a_text_is_answered_by_a_message(openai):
    answer = await ask(openai, max_output_tokens=200)
    assert answer.id.startswith("resp_")
    assert answer.status == "completed"
    assert answer.output[0].type == "message"
    assert answer.output_text
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


async def test_what_is_cut_off_says_so(openai):
    answer = await ask(openai, max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"


async def test_it_answers_as_chat_does(openai):
    told = {"extra_body": {"kiki": {"memory": False}}}
    chat = await openai.chat.completions.create(
        model="base",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": PROMPT},
        ],
        max_tokens=8,
        temperature=0,
        **told,
    )
    answer = await ask(openai, instructions="Be brief.", **told)
    assert answer.output_text == chat.choices[0].message.content


async def test_a_response_goes_on_from_the_one_before(openai):
    told = {"extra_body": {"kiki": {"memory": False}}}
    first = await ask(openai, "My name is Alice.", **told)
    second = await ask(openai, "What is my name?", previous_response_id=first.id, **told)
    by_hand = [
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is my name?"},
    ]
    expected = await ask(openai, by_hand, **told)
    assert second.usage.input_tokens == expected.usage.input_tokens
    assert second.previous_response_id == first.id
    third = await ask(openai, "Sure?", previous_response_id=second.id, **told)
    assert third.usage.input_tokens > second.usage.input_tokens


async def test_a_stored_response_is_fetched_and_deleted(openai, http):
    answer = await ask(openai)
    fetched = await openai.responses.retrieve(answer.id)
    assert fetched.model_dump() == answer.model_dump()
    items = (await openai.responses.input_items.list(answer.id)).data
    assert [item.content for item in items] == [PROMPT]
    gone = (await http.delete(f"/v1/responses/{answer.id}")).json()
    assert gone == {"id": answer.id, "object": "response", "deleted": True}
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve(answer.id)
    with pytest.raises(NotFoundError) as refused:
        await ask(openai, previous_response_id=answer.id)
    assert refused.value.param == "previous_response_id"


async def test_what_is_not_stored_is_not_there(openai):
    answer = await ask(openai, store=False)
    assert answer.store is False
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve(answer.id)


async def test_nobody_goes_on_from_another_users_response(openai):
    answer = await ask(openai, user="anna")
    with pytest.raises(NotFoundError):
        await ask(openai, user="ben", previous_response_id=answer.id)
    assert await ask(openai, user="anna", previous_response_id=answer.id)


async def test_a_stream_tells_of_each_item_in_order(openai):
    stream = await ask(openai, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-4].text == events[-1].response.output_text
    assert events[-1].response.usage.output_tokens == 8
    assert (await openai.responses.retrieve(events[0].response.id)).output_text == text


async def test_the_clients_own_stream_reader_follows(openai):
    told = {"kiki": {"memory": False}}
    async with openai.responses.stream(
        model="base", input=PROMPT, temperature=0, extra_body=told
    ) as stream:
        async for _ in stream:
            pass
        assert (await stream.get_final_response()).output_text


async def test_a_tool_is_called_and_its_result_is_used(openai):
    call = await ask(
        openai,
        "What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        max_output_tokens=100,
    )
    (item,) = [item for item in call.output if item.type == "function_call"][:1]
    assert item.name == "get_weather"
    assert set(json.loads(item.arguments)) == {"city"}
    outputs = [
        {"type": "function_call_output", "call_id": one.call_id, "output": "sunny, 21 degrees"}
        for one in call.output
        if one.type == "function_call"
    ]
    answer = await ask(openai, outputs, previous_response_id=call.id, max_output_tokens=20)
    assert answer.output_text
    stranger = {"type": "function_call_output", "call_id": "nix", "output": "x"}
    with pytest.raises(BadRequestError):
        await ask(openai, [{"role": "user", "content": "hi"}, stranger])


async def test_a_streamed_call_comes_in_pieces(openai):
    stream = await ask(
        openai,
        "What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        parallel_tool_calls=False,
        max_output_tokens=100,
        stream=True,
    )
    events = [event async for event in stream]
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert len(pieces) > 1
    assert "".join(pieces) == done.arguments
    assert events[-1].response.output[0].arguments == done.arguments


class Color(BaseModel):
    name: str = Field(max_length=20)
    dark: bool


async def test_structured_output_is_parsed(openai):
    answer = await openai.responses.parse(
        model="base", input=PROMPT, text_format=Color, max_output_tokens=100, temperature=0
    )
    assert isinstance(answer.output_parsed, Color)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": []}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": "word " * 9000}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(http, change, param):
    body = {"model": "base", "input": PROMPT, "max_output_tokens": 2} | change
    response = await http.post("/v1/responses", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param, response.text


async def test_log_probabilities_come_when_included(openai):
    answer = await ask(openai, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = answer.output[0].content[0].logprobs
    assert len(logprobs) == 8
    assert all(len(one.top_logprobs) == 2 for one in logprobs)


async def test_deleting_the_memory_takes_the_stored_response(openai, http):
    answer = await ask(openai, "I live in Lyon.", user="carla")
    gone = await http.delete(f"/v1/memory/{answer.id}", params={"user": "carla"})
    assert gone.status_code == 200
    with pytest.raises(NotFoundError):
        await openai.responses.retrieve(answer.id)
