"""Tools written as JSON: what the model is told, and its answer taken apart in any pieces."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from adapters.engines.base import (
    Calls,
    Delta,
    GenerateRequest,
    Message,
    Tool,
    ToolCall,
    Tools,
)
from adapters.engines.written_tools import Reader, written

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=8,
)
CALLS = st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, VALUES)), min_size=1, max_size=4)


def read(text: str, cuts: list[int]) -> tuple[str, tuple[ToolCall, ...], str | None]:
    reader, calls, said = Reader(), Calls(), ""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(places):
        delta = reader.read(Delta(0, text[start:end]))
        said += delta.text
        calls.add(delta.calls)
    return said, calls.whole, reader.read(Delta(0, finish_reason="stop")).finish_reason


@given(CALLS, st.lists(st.integers(0, 500)), st.sampled_from([None, 1]), st.booleans())
def test_calls_come_out_whole_however_they_are_cut(calls, cuts, indent, ascii_only):
    told = [{"name": name, "arguments": arguments} for name, arguments in calls]
    text = json.dumps({"tool_calls": told}, indent=indent, ensure_ascii=ascii_only)
    said, found, finish = read(text, cuts)
    assert (said, finish) == ("", "tool_calls")
    assert [(call.name, json.loads(call.arguments)) for call in found] == calls
    assert len({call.id for call in found}) == len(calls)


@given(TEXTS, st.lists(st.integers(0, 500)), st.booleans())
def test_an_answer_without_a_call_is_its_text(answer, cuts, ascii_only):
    text = json.dumps({"response": answer}, ensure_ascii=ascii_only)
    assert read(text, cuts) == (answer, (), "stop")


def test_calls_and_results_before_are_plain_messages():
    messages = (
        Message("user", "Weather?"),
        Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Paris"}'),)),
        Message("tool", "sunny", tool_call_id="c1"),
    )
    plain = written(GenerateRequest(messages)).messages
    assert [message.role for message in plain] == ["user", "assistant", "user"]
    assert json.loads(plain[1].content)["tool_calls"][0]["arguments"] == {"city": "Paris"}
    assert "sunny" in plain[2].content


def test_what_a_tools_schema_defines_is_found_where_it_was_moved():
    parameters = {
        "type": "object",
        "properties": {"place": {"$ref": "#/$defs/Place"}},
        "$defs": {"Place": {"type": "string"}},
    }
    tools = Tools((Tool("go", "Go.", parameters), Tool("stay", "Stay.", parameters)), required=True)
    request = written(GenerateRequest((Message("user", "Go."),), tools=tools))
    schema = request.sampling.json_schema
    assert schema is not None
    text = json.dumps(schema)
    for name in schema["$defs"]:  # type: ignore[attr-defined]
        assert f"#/$defs/{name}" in text
    assert request.messages[0].role == "system"
    assert request.tools is None
