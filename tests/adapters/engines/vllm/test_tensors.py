from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.engines.vllm.tensors import Tensor, as_f32, create_tensors, open_tensors, put_f32
from kiki.errors import AdapterError


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_bf16_is_rounded_as_torch_rounds_it(values):
    import torch

    numbers = np.array(values, np.float32)
    out = Tensor("BF16", np.zeros(numbers.shape, "<u2"))
    put_f32(out, numbers)
    expected = torch.from_numpy(numbers).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(as_f32(out), expected)


def test_a_created_file_starts_with_zeros_and_is_read_by_safetensors(tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "made.safetensors"
    made = create_tensors(path, {"a": ("BF16", (3, 2)), "b": ("F32", (5,)), "c": ("F16", (2, 2))})
    put_f32(made["a"], np.full((3, 2), 1.5, np.float32))
    made["c"].array[0] = 0.25
    read = load_file(path)
    assert read["a"].tolist() == [[1.5, 1.5]] * 3
    assert read["b"].tolist() == [0.0] * 5
    assert read["c"].tolist() == [[0.25, 0.25], [0.0, 0.0]]
    assert as_f32(open_tensors(path)["a"].read()).tolist() == [[1.5, 1.5]] * 3


@pytest.mark.parametrize("size", [0, 60, 4096])
def test_a_file_that_is_copied_over_while_it_is_open_is_told_and_harms_nobody(tmp_path, size):
    path = tmp_path / "made.safetensors"
    create_tensors(path, {"a": ("F32", (2,))})
    stored = open_tensors(path)["a"]
    assert stored.read().array.tolist() == [0.0, 0.0]
    path.write_bytes(bytes(size))
    with pytest.raises(AdapterError, match=r"made\.safetensors was changed"):
        stored.read()


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path):
    path = tmp_path / "made.safetensors"
    create_tensors(path, {"a": ("F32", (2,))})
    stored = open_tensors(path)["a"]
    create_tensors(tmp_path / "new", {"a": ("F32", (3,))})
    (tmp_path / "new").replace(path)
    assert stored.read().array.tolist() == [0.0, 0.0]
