from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mix import BASE, MAX_ADAPTERS, Mix
from kiki.errors import RequestError

names = st.text(min_size=1, max_size=8)
weights = st.floats(-10, 10, allow_nan=False)


@given(st.dictionaries(names, weights, max_size=MAX_ADAPTERS), st.randoms())
def test_mixes_of_the_same_weights_are_equal_in_any_order(pairs, random):
    shuffled = list(pairs.items())
    random.shuffle(shuffled)
    assert Mix.of(shuffled) == Mix.of(pairs)
    assert hash(Mix.of(shuffled)) == hash(Mix.of(pairs))


def test_a_weight_of_zero_is_no_adapter():
    assert Mix.of({"shell": 0.0}) == BASE
    assert not Mix.of({"shell": 0})


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 11, True, "0.5", None])
def test_a_weight_that_is_no_finite_number_is_refused_by_name(weight):
    with pytest.raises(RequestError) as caught:
        Mix.of({"shell": weight})
    assert caught.value.param == "kiki.adapters.shell"
    assert repr(weight) in str(caught.value)


def test_a_fifth_adapter_is_refused():
    with pytest.raises(RequestError, match="at most 4"):
        Mix.of(dict.fromkeys("abcde", 0.2))
