"""Schemas that would stop an engine are refused before it sees them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.sizes import MOST_REPEATED, check_sizes, repeated
from gateway.settings import load_settings
from kiki.errors import TooLargeError


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("^(a{0,100}){0,100}$", 10_000),
        ("((a{10}){10}){30}", 3_000),
        (r"^\d{4}-\d{2}-\d{2}$", 10),
        ("[a-z]{1,64}@[a-z]{1,255}", 320),
        ("(ab|cd){5}", 20),
        ("[(){2}]{3}", 3),
        (r"\({2}", 2),
        ("a{3,}", 3),
        ("a+b*", 2),
    ],
)
def test_counted_repetitions_multiply_where_they_are_nested(pattern, parts):
    assert repeated(pattern) == parts


@given(st.text(alphabet="ab(){}[]0123,\\|*+?^$.", max_size=60))
def test_any_text_has_a_size(text):
    assert repeated(text) >= 0


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_nest_is_as_large_as_what_it_matches(inner, outer):
    pattern = f"(a{{{inner}}}){{{outer}}}"
    assert re.fullmatch(pattern, "a" * repeated(pattern))


def test_a_pattern_that_would_stop_the_engine_is_refused_wherever_it_lies():
    bad = {"type": "string", "pattern": "^(a{0,100}){0,100}$"}
    schema = {"type": "object", "properties": {"x": {"anyOf": [{"type": "null"}, bad]}}}
    with pytest.raises(TooLargeError) as caught:
        check_sizes(load_settings(), messages=1, schemas={"response_format": schema})
    assert caught.value.param == "response_format"
    assert str(MOST_REPEATED) in str(caught.value)
