"""Stop strings are found in whatever pieces a text comes, and no part of them is sent."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapters.engines.mlx.stopping import StopStrings

texts = st.text("abc\n", max_size=30)
strings = st.lists(st.text("abc\n", min_size=1, max_size=4), max_size=4)


def until_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """Letter by letter, as slow as can be."""
    for end in range(1, len(text) + 1):
        ends = [stop for stop in stops if text[:end].endswith(stop)]
        if ends:
            return text[: end - max(map(len, ends))], True
    return text, False


@given(texts, strings, st.lists(st.integers(0, 30)))
def test_any_cutting_of_a_text_gives_what_stands_before_the_stop(text, stops, cuts):
    finder = StopStrings(stops)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    sent, stopped = "", False
    for start, end in pairwise(places):
        piece, stopped = finder.feed(text[start:end])
        sent += piece
        expected, _ = until_stop(text, stops)
        assert expected.startswith(sent)
        if stopped:
            break
    if not stopped:
        sent += finder.rest()
    assert (sent, stopped) == until_stop(text, stops)


def test_without_stop_strings_nothing_is_held_back():
    finder = StopStrings(())
    assert finder.feed("abc") == ("abc", False)
    assert finder.rest() == ""
