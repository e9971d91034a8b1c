from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.names import base_key, near, same_base

BASES = ("Qwen3.6-35B-A3B", "SmolLM2-135M-Instruct", "SmolLM2-135M", "Llama-3.1-8B", "gpt2")
OWNERS = ("", "Qwen/", "mlx-community/", "/srv/models/", "C:\\models\\", "./")
PACKINGS = (
    *("", "-Q4_K_M", ".Q4_1", "-IQ2_XXS", "-UD-Q4_K_XL", "-Q8_0", "-TQ1_0", "-MXFP4_MOE"),
    *("-4bit", "-MLX-8bit", "-4bit-DWQ", "-AWQ", "-FP8", "-FP8-Dynamic", "-GPTQ-Int4", "-bf16"),
    *(".F32", "-F16", "-NVFP4", "-i1-GGUF", "-w4a16", "-3.5bpw-exl2", "-bnb-4bit"),
)
ENDINGS = ("", ".gguf", "-00001-of-00003.gguf", "/")

bases = st.sampled_from(BASES)
written = st.builds(
    lambda owner, base, packing, ending, case: case(owner + base + packing + ending),
    st.sampled_from(OWNERS),
    bases,
    st.sampled_from(PACKINGS),
    st.sampled_from(ENDINGS),
    st.sampled_from((str, str.lower, str.upper)),
)


@given(bases, st.data())
def test_a_base_is_the_same_however_it_is_packed_and_wherever_it_lies(base, data):
    owner = data.draw(st.sampled_from(OWNERS))
    packing = data.draw(st.sampled_from(PACKINGS))
    ending = data.draw(st.sampled_from(ENDINGS))
    assert same_base(base, owner + base + packing + ending)


@given(bases, bases, st.sampled_from(PACKINGS), st.sampled_from(PACKINGS))
def test_another_size_or_tuning_is_another_base(one, other, first, second):
    assert same_base(one + first, other + second) == (one == other)


@given(written | st.text(max_size=30), written | st.text(max_size=30))
def test_the_order_of_the_two_names_does_not_matter(one, other):
    assert same_base(one, other) == same_base(other, one)


@given(written | st.text(max_size=40))
def test_a_key_is_its_own_key_and_a_name_is_the_same_as_itself(name):
    assert same_base(name, name) == bool(base_key(name))
    assert base_key(base_key(name)) == base_key(name)


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3.6-35B-A3B",
        "mlx-community/Qwen3.6-35B-A3B-4bit",
        "Qwen3.6-35B-A3B-Q4_K_M.gguf",
        "Qwen_Qwen3.6-35B-A3B-Q4_K_M.gguf",
        "Qwen3.6-35B-A3B-AWQ",
        "Qwen/Qwen3.6-35B-A3B-FP8",
        "/home/anna/.cache/huggingface/hub/models--Qwen--Qwen3.6-35B-A3B/snapshots/0a1b2c",
    ],
)
def test_the_names_of_the_reference_base_are_one(name):
    assert same_base(name, "Qwen/Qwen3.6-35B-A3B")
    assert not same_base(name, "Qwen/Qwen3.5-35B-A3B")


def test_a_name_that_says_nothing_is_no_base():
    assert not same_base("", "")
    assert not same_base("", "gpt2")


def test_names_that_are_nearly_right_are_suggested():
    assert near("shel", ["shell", "sql"]) == " Did you mean shell?"
    assert near("zebra", ["shell", "sql"]) == ""
