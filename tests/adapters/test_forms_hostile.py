"""Files from strangers: each is one clear error, soon, and never much memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from adapters.forms import read_lora, write_lora
from kiki.errors import AdapterError
from tests.adapters.forms_lora import LLAMA, QWEN35MOE, make_lora

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
Tensors = dict[str, np.ndarray]


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


@pytest.fixture
def mlx(tmp_path: Path) -> Path:
    write_lora(make_lora(LLAMA), "mlx", tmp_path / "mlx")
    return tmp_path / "mlx"


@pytest.fixture
def peft(tmp_path: Path) -> Path:
    write_lora(make_lora(QWEN35MOE), "peft", tmp_path / "peft")
    return tmp_path / "peft"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    write_lora(make_lora(LLAMA), "gguf", tmp_path / "a.gguf", base=LLAMA.base(2))
    return tmp_path / "a.gguf"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"),
        (b"\1\0\0", "cut off"),
        (safetensors({"a": F32}, bytes(4)), "cut off"),
        (safetensors({"a": F32}, bytes(12)), "cut off, or too long"),
        (safetensors({"a": F32}, bytes(8), length=1 << 40), "cut off in its header"),
        (safetensors({"a": F32}, bytes(8), length=(1 << 64) - 1), "cut off in its header"),
        (safetensors({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12)), "invalid off"),
        (safetensors({"a": F32 | {"data_offsets": [-8, 0]}}, bytes(8)), "isn't a valid"),
        (safetensors({"a": F32 | {"data_offsets": [8, 16]}}, bytes(16)), "invalid offset"),
        (safetensors({"a": F32 | {"shape": [1 << 40, 1 << 40]}}, bytes(8)), "isn't a valid"),
        (safetensors({"a": F32 | {"shape": [3]}}, bytes(8)), "isn't a valid"),
        (safetensors({"a": F32 | {"shape": [2.0]}}, bytes(8)), "isn't a valid"),
        (
            safetensors({"a": F32 | {"shape": [0, 1 << 62, 4], "data_offsets": [0, 0]}}),
            "can't have the shape",
        ),
        (safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(F32).encode(),) * 2), bytes(8)), "twice"),
        (safetensors({"a": F32 | {"dtype": "F64", "shape": [1]}}, bytes(8)), "a is F64"),
        (safetensors(b"{" * 100), "isn't a valid"),
        (safetensors(b"[" * 100_000), "isn't a valid"),
        (safetensors(b'{"a":' * 50_000), "isn't a valid"),
        (safetensors([]), "isn't a valid"),
        (safetensors({"a": F32}, bytes(8)), "unknown weight 'a'"),
        (safetensors({}), "holds no weights"),
    ],
)  # fmt: skip
def test_a_malformed_safetensors_file_is_refused(data, said, mlx):
    (mlx / "adapters.safetensors").write_bytes(data)
    with pytest.raises(AdapterError, match=said):
        read_lora(mlx)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fine_tune_type": "dora"}, "'dora' isn't read"),
        ({"fine_tune_type": "full"}, "'full' isn't read"),
        ({"lora_parameters": None}, "lora_parameters is missing"),
        ({"lora_parameters": {"rank": 3, "scale": 1.0}}, "the config says rank 3"),
        ({"lora_parameters": {"rank": 2}}, "scale is None"),
        ({"lora_parameters": {"rank": 2, "scale": 0}}, "scale is 0"),
        ({"lora_parameters": {"rank": 2, "scale": float("nan")}}, "scale is nan"),
        ({"lora_parameters": {"rank": 2, "scale": float("inf")}}, "scale is inf"),
        ({"lora_parameters": {"rank": 2, "scale": 10**400}}, "too large"),
        ({"lora_parameters": {"rank": True, "scale": 1.0}}, "rank is True"),
        ({"lora_parameters": {"rank": 10**9, "scale": 1.0}}, "rank is 1000000000"),
    ],
)
def test_an_mlx_config_that_lies_is_refused(change, said, mlx):
    path = mlx / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdapterError, match=said):
        read_lora(mlx)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 3}, "rank 3"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "OLoRA"}, "OLoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"rank_pattern": [1]}, "rank_pattern isn't an object"),
        ({"rank_pattern": {"(.*)*q": 2}}, "only plain module names"),
        ({"rank_pattern": {"mlp.experts.gate_up_proj": 0}}, "'mlp.experts.gate_up_proj' is 0"),
        ({"rank_pattern": {"mlp.experts.gate_up_proj": 5}}, "rank 5"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, "alpha_pattern 'q_proj' is inf"),
    ],
)
def test_a_peft_config_that_lies_is_refused(change, said, peft):
    path = peft / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdapterError, match=said):
        read_lora(peft)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "isn't JSON"),
        ("[1]", "isn't a JSON object"),
        ("[" * 100_000, "isn't JSON"),
        ('{"a": "' + "x" * 1_100_000 + '"}', "over 1000000 bytes"),
    ],
)
def test_a_config_that_is_none_is_refused(text, said, mlx):
    (mlx / "adapter_config.json").write_text(text)
    with pytest.raises(AdapterError, match=said):
        read_lora(mlx)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapters.safetensors"])
def test_a_link_out_of_the_folder_is_refused(name, mlx, tmp_path):
    (mlx / name).rename(tmp_path / "elsewhere")
    (mlx / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError, match="outside the adapter's folder"):
        read_lora(mlx)


def test_a_link_to_itself_and_a_folder_as_a_file_are_refused(mlx):
    (mlx / "adapter_config.json").unlink()
    (mlx / "adapter_config.json").symlink_to("adapter_config.json")
    with pytest.raises(AdapterError, match="can't be read"):
        read_lora(mlx)
    (mlx / "adapter_config.json").unlink()
    (mlx / "adapter_config.json").mkdir()
    with pytest.raises(AdapterError, match="isn't a file"):
        read_lora(mlx)


def test_a_link_to_the_folder_itself_is_followed(mlx, tmp_path):
    (tmp_path / "link").symlink_to(mlx)
    assert read_lora(tmp_path / "link").weights.keys() == read_lora(mlx).weights.keys()


def changed(path: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{Q}.lora_a"), "only one of lora_A and lora_B"),
        (lambda t: t.pop(f"{Q}.lora_b"), "only one of lora_A and lora_B"),
        (lambda t: t.update({f"{Q}.m": np.ones(4, np.float32)}), r"unknown weight .*q_proj\.m"),
        (lambda t: t.update({"lm_head.lora_a": t[f"{Q}.lora_a"]}), "unknown weight 'lm_head"),
        (lambda t: t.update({f"{Q[6:]}.lora_a": t[f"{Q}.lora_a"]}), "are the same weight"),
        (lambda t: t.update({f"{Q}.lora_a": t[f"{Q}.lora_a"].T}), "shapes A"),
        (lambda t: t.update({f"{Q}.lora_a": t[f"{Q}.lora_a"].ravel()}), "shapes A"),
        (lambda t: t.update({f"{Q}.lora_a": t[f"{Q}.lora_a"][None]}), "shapes A"),
        (lambda t: t.update({f"{Q}.lora_b": np.ones((2, 0), np.float32)}), "shapes A"),
    ],
)
def test_mlx_weights_that_make_no_pair_are_refused(change, said, mlx):
    changed(mlx / "adapters.safetensors", change)
    with pytest.raises(AdapterError, match=said):
        read_lora(mlx)


EXPERTS = "base_model.model.model.language_model.layers.0.mlp.experts"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{EXPERTS}.base_layer.lora_A.weight"), "only one of"),
        (
            lambda t: [t.pop(f"{EXPERTS}.base_layer.lora_{half}.weight") for half in "AB"],
            "doesn't say which",
        ),
        (
            lambda t: t.update({f"{EXPERTS}.lora_A.weight": t[f"{EXPERTS}.lora_A.weight"][1:]}),
            "the config says rank 2",
        ),
        (
            lambda t: t.update(
                {f"{EXPERTS}.7.gate_proj.lora_{half}.weight": np.ones((2, 2), np.float32)
                 for half in "AB"}
            ),
            "no weights for expert 0",
        ),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": np.ones((2, 2))}), "F64"),
        (lambda t: t.update({"../../x": np.ones(2, np.float32)}), "unknown weight"),
    ],
)  # fmt: skip
def test_peft_weights_that_make_no_adapter_are_refused(change, said, peft):
    changed(peft / "adapter_model.safetensors", change)
    with pytest.raises(AdapterError, match=said):
        read_lora(peft)


def header(tensors: int, entries: int, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + body


def entry(kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGUF", "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 2 or 3"),
        (header(1 << 60, 0, bytes(64)), "claims"),
        (header(0, 1 << 60, bytes(64)), "claims"),
        (header(0, 1, struct.pack("<Q", 1 << 62) + bytes(64)), "cut off"),
        # The gguf package goes through this one for ever.
        (header(0, 1, entry(9, struct.pack("<IQ", 4, 1 << 40)) + bytes(64)), "cut off"),
        (header(0, 1, entry(9, struct.pack("<IQ", 8, 1 << 40)) + bytes(64)), "claims"),
        (header(0, 1, entry(9, struct.pack("<IQ", 9, 1 << 40)) + bytes(64)), "unknown type 9"),
        (header(0, 1, entry(77, bytes(64))), "unknown type 77"),
        (header(0, 2, entry(7, b"\1") * 2), "'k' twice"),
        (header(0, 1, entry(8, struct.pack("<Q", 2) + b"\xff\xff")), "isn't UTF-8"),
        (header(0, 0, bytes(64)), "isn't a LoRA"),
        (header(1, 0, struct.pack("<Q", 1) + b"t" + struct.pack("<I", 99) + bytes(64)), "99 axes"),
    ],
)
def test_a_malformed_gguf_file_is_refused(data, said, tmp_path):
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(AdapterError, match=said):
        read_lora(tmp_path / "a.gguf")


@given(kept=st.floats(0.01, 0.999))
@settings(max_examples=30)
def test_a_gguf_file_cut_off_anywhere_is_refused(kept, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "a.gguf"
    write_lora(make_lora(LLAMA), "gguf", path, base=LLAMA.base(2))
    data = path.read_bytes()
    path.write_bytes(data[: max(4, int(len(data) * kept))])
    with pytest.raises(AdapterError):
        read_lora(path)


@given(at=st.floats(0, 0.5), junk=st.binary(min_size=1, max_size=12))
@settings(max_examples=150)
def test_a_damaged_file_of_any_form_raises_nothing_but_adapter_errors(at, junk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    lora = make_lora(QWEN35MOE, layers=range(1))
    write_lora(lora, "gguf", folder / "a.gguf", base=QWEN35MOE.base(1))
    write_lora(lora, "mlx", folder / "mlx")
    write_lora(lora, "peft", folder / "peft")
    for path, file in (
        (folder / "a.gguf", folder / "a.gguf"),
        (folder / "mlx", folder / "mlx" / "adapters.safetensors"),
        (folder / "peft", folder / "peft" / "adapter_model.safetensors"),
        (folder / "peft", folder / "peft" / "adapter_config.json"),
    ):
        data = bytearray(file.read_bytes())
        start = int(len(data) * at)
        data[start : start + len(junk)] = junk
        file.write_bytes(data)
        with suppress(AdapterError):
            read_lora(path)


def foreign_gguf(path: Path, shapes: dict[str, tuple[int, ...]], *, heads: bool = False) -> None:
    """An adapter for q of layer 0 as llama.cpp's own converter writes it, without the heads."""
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    if heads:
        writer.add_head_count(4)
    for half, shape in shapes.items():
        writer.add_tensor(f"blk.0.attn_q.weight.{half}", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_that_does_not_say_its_heads_needs_the_base(tmp_path):
    path = tmp_path / "theirs.gguf"
    foreign_gguf(path, {"lora_a": (2, 16), "lora_b": (64, 2)})
    with pytest.raises(AdapterError, match=r"how many heads.*--base"):
        read_lora(path)
    assert list(read_lora(path, base=LLAMA.base(2)).weights) == ["layers.0.self_attn.q_proj"]
    with pytest.raises(AdapterError, match="is for llama, the base is qwen35moe"):
        read_lora(path, base=QWEN35MOE.base(2))


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((16,), (64,), "shapes A"),
        ((2, 16), (64,), "shapes A"),
        ((2, 16), (64, 3), "shapes A"),
        ((1, 1, 2, 16), (1, 1, 64, 2), "shapes A"),
        ((3, 2, 16), (3, 64, 2), "the base's heads don't make"),
        ((2, 16), (60, 2), "the base's heads don't make"),
    ],
)
def test_a_gguf_whose_shapes_make_no_update_is_refused(a, b, said, tmp_path):
    foreign_gguf(tmp_path / "a.gguf", {"lora_a": a, "lora_b": b}, heads=True)
    with pytest.raises(AdapterError, match=said):
        read_lora(tmp_path / "a.gguf")


@pytest.mark.parametrize("name", ["lora_c", "m"])
def test_a_gguf_tensor_that_is_no_half_is_named(name, tmp_path):
    foreign_gguf(tmp_path / "a.gguf", {name: (2, 16)})
    with pytest.raises(AdapterError, match=f"unknown weight 'blk.0.attn_q.weight.{name}'"):
        read_lora(tmp_path / "a.gguf")


def test_a_gguf_model_is_no_adapter(base_gguf):
    with pytest.raises(AdapterError, match="isn't a LoRA"):
        read_lora(base_gguf)
