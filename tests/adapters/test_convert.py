from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from adapters.forms import read_base_shape, write_lora
from adapters.forms.peft import read_peft
from adapters.forms.rows import permute_rows, unpermute_rows
from adapters.forms.tensors import read_safetensors
from kiki.errors import AdapterError

WIDTH, HEADS, KV_HEADS, HEAD, RANK = 24, 3, 1, 8, 4
ROWS = {"q": HEADS * HEAD, "k": KV_HEADS * HEAD, "v": KV_HEADS * HEAD, "o": WIDTH}
GGUF_NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
Tensors = dict[str, np.ndarray]


def convert_peft_to_gguf(folder: Path, base: Path, out: Path) -> None:
    write_lora(read_peft(folder), "gguf", out, base=read_base_shape(base), force=True)


def weight_name(module: str, half: str, layer: int = 0) -> str:
    return f"base_model.model.model.layers.{layer}.self_attn.{module}_proj.lora_{half}.weight"


@pytest.fixture
def tiny_base(tmp_path: Path) -> Path:
    """A one-layer llama GGUF with the right names and shapes and nothing else."""
    path = tmp_path / "base.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    for module, rows in ROWS.items():
        name = f"blk.0.{GGUF_NAMES[module]}.weight"
        writer.add_tensor(name, np.zeros((rows, WIDTH), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tensors() -> Tensors:
    chance = np.random.default_rng(3)
    made = {}
    for module, rows in ROWS.items():
        made[weight_name(module, "A")] = chance.normal(size=(RANK, WIDTH)).astype(np.float16)
        made[weight_name(module, "B")] = chance.normal(size=(rows, RANK)).astype(np.float16)
    return made


@pytest.fixture
def write_adapter(tmp_path: Path) -> Callable[..., Path]:
    def write(tensors: Tensors, **config: object) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors")
        values = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, **config}
        (folder / "adapter_config.json").write_text(json.dumps(values))
        return folder

    return write


def test_the_gguf_holds_exactly_the_weights_with_q_and_k_in_llama_order(
    tiny_base, tensors, write_adapter, tmp_path
):
    out = tmp_path / "new folder" / "adapter.gguf"
    convert_peft_to_gguf(write_adapter(tensors), tiny_base, out)

    reader = GGUFReader(out)
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert len(found) == len(tensors)
    for module in ROWS:
        name = f"blk.0.{GGUF_NAMES[module]}.weight"
        expected_b = tensors[weight_name(module, "B")]
        found_b = found[f"{name}.lora_b"]
        if module in ("q", "k"):
            assert not np.array_equal(found_b, expected_b)
            found_b = unpermute_rows(found_b, HEADS if module == "q" else KV_HEADS)
        np.testing.assert_array_equal(found_b, expected_b)
        np.testing.assert_array_equal(found[f"{name}.lora_a"], tensors[weight_name(module, "A")])
    metadata = {
        key: reader.fields[key].contents()
        for key in ("general.type", "adapter.type", "adapter.lora.alpha", "general.architecture")
    }
    assert metadata == {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
        "general.architecture": "llama",
    }


def test_the_rows_of_a_head_interleave_its_halves():
    rows = np.arange(8).reshape(8, 1)
    assert permute_rows(rows, heads=1).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert permute_rows(rows, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@given(heads=st.integers(1, 12), half=st.integers(1, 40), columns=st.integers(1, 6))
@settings(max_examples=60)
def test_unpermuting_undoes_permuting_for_any_shape(heads, half, columns):
    rows = heads * half * 2
    weight = np.arange(rows * columns).reshape(rows, columns)
    permuted = permute_rows(weight, heads)
    np.testing.assert_array_equal(unpermute_rows(permuted, heads), weight)
    assert sorted(permuted.ravel()) == sorted(weight.ravel())


def test_a_failed_conversion_leaves_no_file(tiny_base, tensors, write_adapter, tmp_path):
    tensors[weight_name("v", "B")] = np.full((ROWS["v"], RANK), np.inf, np.float16)
    out = tmp_path / "out" / "adapter.gguf"
    with pytest.raises(AdapterError, match="isn't finite"):
        convert_peft_to_gguf(write_adapter(tensors), tiny_base, out)
    assert list(out.parent.iterdir()) == []


def test_an_existing_adapter_is_replaced(tiny_base, tensors, write_adapter, tmp_path):
    out = tmp_path / "adapter.gguf"
    convert_peft_to_gguf(write_adapter(tensors), tiny_base, out)
    before = out.read_bytes()
    halved = {name: tensor / 2 for name, tensor in tensors.items()}
    convert_peft_to_gguf(write_adapter(halved), tiny_base, out)
    assert out.read_bytes() != before


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_truncated_weights_file_is_refused(kept, tiny_base, tensors, write_adapter, tmp_path):
    folder = write_adapter(tensors)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(AdapterError, match="cut off"):
        convert_peft_to_gguf(folder, tiny_base, tmp_path / "out.gguf")


@given(junk=st.binary(max_size=400))
@settings(max_examples=60)
def test_junk_in_place_of_weights_raises_only_adapter_errors(junk, tmp_path_factory):
    path = tmp_path_factory.mktemp("junk") / "adapter_model.safetensors"
    for data in (junk, len(junk).to_bytes(8, "little") + junk):
        path.write_bytes(data)
        with suppress(AdapterError):
            assert read_safetensors(path) == {}


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(name, tiny_base, tensors, write_adapter, tmp_path):
    folder = write_adapter(tensors)
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"{name} is missing"):
        convert_peft_to_gguf(folder, tiny_base, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 8}, "rank 8"),
        ({"r": 0}, "r is 0"),
        ({"r": "16"}, "r is '16'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"peft_type": "IA3"}, "peft_type must be LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 8}}, "rank 8"),
        ({"rank_pattern": {"(a+)+": 4}}, "only plain module names"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias 'all'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    config, said, tiny_base, tensors, write_adapter, tmp_path
):
    with pytest.raises(AdapterError, match=said):
        convert_peft_to_gguf(write_adapter(tensors, **config), tiny_base, tmp_path / "out.gguf")


def test_a_config_that_is_not_json_is_refused(tiny_base, tensors, write_adapter, tmp_path):
    folder = write_adapter(tensors)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError, match="isn't JSON"):
        convert_peft_to_gguf(folder, tiny_base, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        (weight_name("q", "B", layer=1), np.zeros((24, RANK)), "the base doesn't have"),
        (
            weight_name("z", "B"),
            np.zeros((24, RANK)),
            "self_attn.z_proj, for which llama.cpp has no",
        ),
        ("lm_head.weight", np.zeros((24, RANK)), "unknown weight"),
        (weight_name("q", "B"), np.zeros((48, RANK)), "48 x 24; the base's is 24 x 24"),
        (weight_name("v", "A"), np.zeros((RANK, 32)), "8 x 32; the base's is 8 x 24"),
        (weight_name("v", "A"), np.zeros((RANK + 1, WIDTH)), "rank 4"),
        (weight_name("v", "A"), np.zeros(RANK * WIDTH), "rank 4"),
    ],
)
def test_a_weight_that_does_not_fit_the_base_is_refused(
    name, array, said, tiny_base, tensors, write_adapter, tmp_path
):
    tensors[name] = array.astype(np.float16)
    if name.endswith("lora_B.weight"):
        tensors.setdefault(name.replace("lora_B", "lora_A"), np.zeros((RANK, WIDTH), np.float16))
    with pytest.raises(AdapterError, match=said):
        convert_peft_to_gguf(write_adapter(tensors), tiny_base, tmp_path / "out.gguf")


def test_half_a_pair_is_refused(tiny_base, tensors, write_adapter, tmp_path):
    del tensors[weight_name("k", "A")]
    with pytest.raises(AdapterError, match="only one of lora_A and lora_B"):
        convert_peft_to_gguf(write_adapter(tensors), tiny_base, tmp_path / "out.gguf")


def test_an_adapter_without_weights_is_refused(tiny_base, write_adapter, tmp_path):
    with pytest.raises(AdapterError, match="holds no weights"):
        convert_peft_to_gguf(write_adapter({}), tiny_base, tmp_path / "out.gguf")


def test_an_unread_number_format_is_refused(tiny_base, tensors, write_adapter, tmp_path):
    tensors[weight_name("q", "A")] = np.zeros((RANK, WIDTH), np.int8)
    with pytest.raises(AdapterError, match="I8; F16, BF16 or F32 is read"):
        convert_peft_to_gguf(write_adapter(tensors), tiny_base, tmp_path / "out.gguf")


@pytest.mark.parametrize("data", [b"", b"GGUF", b"not a model at all"])
def test_a_base_that_is_no_gguf_is_refused(data, tensors, write_adapter, tmp_path):
    base = tmp_path / "wrong.gguf"
    base.write_bytes(data)
    with pytest.raises(AdapterError, match=r"wrong\.gguf isn't a readable GGUF"):
        convert_peft_to_gguf(write_adapter(tensors), base, tmp_path / "out.gguf")


def test_a_missing_base_is_named(tensors, write_adapter, tmp_path):
    with pytest.raises(AdapterError, match=r"base model .*nowhere\.gguf is missing"):
        convert_peft_to_gguf(
            write_adapter(tensors), tmp_path / "nowhere.gguf", tmp_path / "out.gguf"
        )


def test_a_base_of_another_architecture_is_refused(tensors, write_adapter, tmp_path):
    base = tmp_path / "gpt.gguf"
    writer = GGUFWriter(base, "gpt2")
    writer.add_tensor("x", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(AdapterError, match="is a gpt2 model"):
        convert_peft_to_gguf(write_adapter(tensors), base, tmp_path / "out.gguf")
