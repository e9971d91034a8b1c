from __future__ import annotations

import json
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from adapters.engines.openai_wire import events


async def in_pieces(stream: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


@given(st.lists(st.text()), st.integers(1, 50), st.sampled_from(["\n\n", "\r\n\r\n"]))
async def test_a_stream_gives_its_objects_whatever_they_hold_and_however_it_is_cut(
    texts, size, end
):
    lines = [f"data: {json.dumps({'text': text}, ensure_ascii=False)}{end}" for text in texts]
    stream = "".join([": a comment\n", *lines, f"data: [DONE]{end}"])
    found = [event["text"] async for event in events(in_pieces(_utf8(stream), size))]
    assert [_utf8(text) for text in found] == [_utf8(text) for text in texts]


async def test_signs_that_end_a_line_in_unicode_end_no_event():
    stream = 'data: {"text": "a\u2028b\u2029c\u0085d"}\n\n'.encode()
    assert [event async for event in events(in_pieces(stream, 7))] == [
        {"text": "a\u2028b\u2029c\u0085d"}
    ]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
