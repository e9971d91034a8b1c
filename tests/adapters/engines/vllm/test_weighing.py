from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.engines.vllm.tensors import Kind, as_f32, numpy_type, put_f32
from adapters.engines.vllm.weighing import Weighing

KINDS: tuple[Kind, ...] = ("F16", "BF16", "F32")


def weighed(kind, wanted, factor, values) -> np.ndarray:
    return Weighing(kind, wanted, factor).weigh(values)


@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize("kind", KINDS)
@given(
    bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
    factor=st.floats(-80, 80, width=32),
)
@settings(max_examples=25, deadline=None)
def test_each_number_is_its_product_in_f32_rounded_once(kind, wanted, bits, factor):
    size = {"F32": "<u4"}.get(kind, "<u2")
    values = np.array(bits, "<u4").astype(size).view(numpy_type(kind))
    expected = np.zeros(values.shape, numpy_type(wanted))
    with np.errstate(all="ignore"):
        put_f32(wanted, expected, as_f32(kind, values) * np.float32(factor))
    np.testing.assert_array_equal(weighed(kind, wanted, factor, values), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_one_into_the_same_kind_keeps_every_bit(kind):
    """Those of a NaN too."""
    size = {"F32": "<u4"}.get(kind, "<u2")
    bits = np.arange(0, 1 << 16, dtype=size)
    given = (bits << (16 if kind == "F32" else 0)).view(numpy_type(kind))
    np.testing.assert_array_equal(weighed(kind, kind, 1.0, given).view(size), given.view(size))
