from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.thinking import ThinkingStripper, strip_thinking

alphabet = st.sampled_from(["<think>", "</think>", "<", "think", ">", "a", " ", "\n", "</"])
texts = st.lists(alphabet, max_size=30).map("".join)


@given(texts, st.data())
def test_pieces_give_what_the_whole_gives(text, data):
    stripper = ThinkingStripper()
    shown = ""
    rest = text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        shown += stripper.feed(rest[:size])
        rest = rest[size:]
    assert shown + stripper.flush() == strip_thinking(text)


@given(texts)
def test_no_thinking_tag_is_ever_shown_open(text):
    assert "<think>" not in strip_thinking(text)


def test_the_thinking_goes_and_the_answer_stays():
    assert strip_thinking("<think>\nhmm, 2+2\n</think>\n\nIt is 4.") == "It is 4."
    assert strip_thinking("It is 4.") == "It is 4."
    assert strip_thinking("if a < b then") == "if a < b then"


def test_thinking_that_never_ends_is_not_shown():
    assert strip_thinking("<think>I wonder") == ""
