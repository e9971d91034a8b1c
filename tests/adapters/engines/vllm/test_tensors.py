from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.engines.vllm.tensors import (
    Stamp,
    TensorFile,
    as_f32,
    header_of,
    put_f32,
    stored_tensors,
)
from kiki.errors import AdapterError


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_bf16_is_rounded_as_torch_rounds_it(values):
    import torch

    numbers = np.array(values, np.float32)
    out = np.zeros(numbers.shape, "<u2")
    put_f32("BF16", out, numbers)
    expected = torch.from_numpy(numbers).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(as_f32("BF16", out), expected)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "made.safetensors"
    path.write_bytes(header_of({"a": ("F16", (2, 2)), "b": ("F32", (5,))}) + bytes(8 + 20))
    os.utime(path, (1, 1))  # a change within one tick of the file system's clock is still a change
    return path


def test_a_header_is_read_by_safetensors(file):
    from safetensors.numpy import load_file

    assert {name: array.shape for name, array in load_file(file).items()} == {
        "a": (2, 2),
        "b": (5,),
    }


def cut(path):
    os.truncate(path, 20)


def copy_over(path):
    path.write_bytes(path.read_bytes())


def replace(path):
    shutil.copy(path, path.with_name("new"))
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [cut, copy_over, replace])
def test_a_file_that_its_owner_changed_is_not_read(change, file):
    stamp = Stamp.of(file)
    change(file)
    with pytest.raises(AdapterError, match="has changed"), TensorFile(file, stamp):
        pass


@pytest.mark.parametrize("change", [cut, copy_over])
def test_a_file_that_is_changed_while_it_is_read_is_an_error_and_no_crash(change, file):
    stored = stored_tensors(file)["b"]

    def read() -> None:
        with TensorFile(file, Stamp.of(file)) as opened:
            change(file)
            opened.read_into(memoryview(bytearray(4 * stored.size)), stored.start)

    with pytest.raises(AdapterError, match="has changed"):
        read()
