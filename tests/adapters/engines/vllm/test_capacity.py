from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from adapters.engines.vllm import VllmConfig
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.capacity import Capacity, Size, available_bytes, measure, slot_rank
from adapters.mix import Mix
from kiki.errors import AdapterError

GB = 1_000_000_000
names = st.sampled_from(["a", "b", "c", "d"])
mixes = st.dictionaries(names, st.floats(-10, 10, allow_nan=False), max_size=4).map(Mix.of)
sizes = st.fixed_dictionaries(
    {n: st.builds(Size, st.integers(1, 64), st.integers(1, 4 * GB)) for n in "abcd"}
)


@given(mix=mixes, sizes=sizes)
def test_what_fits_is_a_part_of_the_mix_that_fits_and_begins_with_the_strongest(mix, sizes):
    capacity = Capacity(64, 4 * GB)
    part = capacity.fitting(mix, sizes)
    assert set(part.weights) <= set(mix.weights)
    assert capacity.holds([sizes[name] for name in part.names])
    if mix:
        strongest = max(abs(weight) for _, weight in mix.weights)
        assert max(abs(weight) for _, weight in part.weights) == strongest
    if capacity.holds([sizes[name] for name in mix.names]):
        assert part is mix


def test_four_production_adapters_fit_or_the_strongest_of_them_do():
    """2 GB and rank 16 each, as on the 35B base."""
    adapters = dict.fromkeys("abcd", Size(16, 2 * GB))
    mix = Mix.of({"a": 0.4, "b": 0.3, "c": 0.2, "d": -0.35})
    assert Capacity(64, 8 * GB).fitting(mix, adapters) == mix
    assert Capacity(64, 7 * GB).fitting(mix, adapters) == Mix.of({"a": 0.4, "b": 0.3, "d": -0.35})
    assert Capacity(32, 8 * GB).fitting(mix, adapters) == Mix.of({"a": 0.4, "d": -0.35})


def test_a_big_adapter_does_not_shut_out_a_smaller_one_after_it():
    adapters = {"a": Size(16, GB), "b": Size(64, GB), "c": Size(16, GB)}
    mix = Mix.of({"a": 0.5, "b": 0.3, "c": 0.2})
    assert Capacity(64, 8 * GB).fitting(mix, adapters).names == ("a", "c")


@pytest.fixture
def base_folder(tmp_path):
    """Two modules of 6 x 8 and 8 x 10, and three experts of 4 x 8, in f16."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["X"]}))
    shapes = {
        "model.embed_tokens.weight": (100, 8),
        "model.layers.0.self_attn.q_proj.weight": (6, 8),
        "model.layers.0.input_layernorm.weight": (8,),
        "model.layers.0.linear_attn.conv1d.weight": (8, 1, 4),
        "model.layers.0.mlp.experts.gate_up_proj": (3, 4, 8),
        "model.layers.1.mlp.down_proj.weight": (8, 10),
    }
    tensors = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_the_slots_take_the_rank_times_the_sides_of_every_module(base_folder):
    base = BaseModel.read(str(base_folder))
    sides = (6 + 8) + 3 * (4 + 8) + (8 + 10)
    assert base.slot_bytes(4, 64) == 4 * 64 * sides * 2
    in_f32 = BaseModel.read(str(base_folder), "float32")
    assert in_f32.slot_bytes(4, 64) == 4 * 64 * sides * 4
    assert BaseModel.read("some/hub-name").slot_bytes(4, 64) is None


def test_the_slots_rank_is_the_largest_that_fits_the_device(base_folder):
    base = BaseModel.read(str(base_folder))
    whole = base.slot_bytes(4, 64)
    assert whole is not None

    def rank(**changes) -> int:
        return slot_rank(VllmConfig(model=str(base_folder), **changes), base)

    assert rank() == 64
    assert rank(lora_bytes=whole) == 64
    assert rank(lora_bytes=whole - 1) == 32
    assert rank(lora_bytes=1) == 1
    assert rank(lora_bytes=1, urls=("http://elsewhere",)) == 64


def test_the_work_folders_share_is_never_more_than_is_free(base_folder, tmp_path):
    assert available_bytes(tmp_path) > 0
    config = VllmConfig(model=str(base_folder), work_dir=tmp_path, store_bytes=1000)
    assert measure(config, BaseModel()).store_bytes == 1000


@pytest.mark.parametrize(
    ("dtype", "config", "kind"),
    [
        ("auto", {"dtype": "bfloat16"}, "BF16"),
        ("auto", {"text_config": {"torch_dtype": "float16"}}, "F16"),
        ("auto", {"dtype": "float32"}, None),
        ("float32", {"dtype": "bfloat16"}, "F32"),
        ("auto", {}, None),
    ],
)
def test_adapters_are_composed_in_the_numbers_that_vllm_computes_with(
    dtype, config, kind, base_folder
):
    (base_folder / "config.json").write_text(json.dumps(config))
    assert BaseModel.read(str(base_folder), dtype).kind == kind


def test_a_text_model_inside_another_has_its_modules_one_level_down(base_folder):
    assert BaseModel.read(str(base_folder)).prefix == "model."
    (base_folder / "config.json").write_text(json.dumps({"text_config": {}}))
    assert BaseModel.read(str(base_folder)).prefix == "model.language_model."


@pytest.mark.parametrize(
    ("module", "outputs", "inputs", "said"),
    [
        ("model.layers.0.self_attn.q_proj", 6, 8, None),
        ("model.layers.0.mlp.experts.base_layer", 4, 8, None),
        ("model.layers.0.mlp.experts.2.up_proj", 2, 8, None),
        ("model.layers.0.self_attn.q_proj", 8, 6, "of 8 x 6; the base's is 6 x 8"),
        ("model.layers.7.self_attn.q_proj", 6, 8, "which the base doesn't have"),
        ("lm_head", 100, 8, "which the base doesn't have"),
    ],
)
def test_a_module_that_the_base_does_not_have_is_refused(
    module, outputs, inputs, said, base_folder
):
    base = BaseModel.read(str(base_folder))
    if said is None:
        base.check(module, outputs, inputs)
        return
    with pytest.raises(AdapterError, match=said):
        base.check(module, outputs, inputs)
