from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import load_file, save_file

from adapters.catalog import SHIPPED
from adapters.forms import form_of, read_base_shape, read_lora, write_lora
from adapters.forms.gguf_names import GATE, UP
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError
from tests.adapters.forms_lora import (
    LLAMA,
    QWEN3MOE,
    QWEN35MOE,
    Plan,
    assert_same_numbers,
    assert_same_updates,
    loras,
    make_lora,
)

NAMES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
quickly = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_adapter_goes_through_all_three_forms_unchanged(name, base_gguf, tmp_path):
    shipped = read_lora(SHIPPED / name)
    written = write_lora(shipped, "mlx", tmp_path / "mlx")
    assert (written.rounding, written.dtype, written.dropped) == (0.0, "f16", ())
    write_lora(
        read_lora(tmp_path / "mlx"), "gguf", tmp_path / "a.gguf", base=read_base_shape(base_gguf)
    )
    write_lora(read_lora(tmp_path / "a.gguf"), "peft", tmp_path / "peft")
    found = read_lora(tmp_path / "peft")
    assert_same_numbers(found, shipped)
    assert found.base == shipped.base
    before = load_file(SHIPPED / name / "adapter_model.safetensors")
    after = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for tensor in before:
        np.testing.assert_array_equal(before[tensor], after[tensor])


@quickly
@given(lora=loras(QWEN35MOE))
def test_any_adapter_of_a_hybrid_with_experts_survives_every_form(lora, tmp_path_factory):
    _round(lora, QWEN35MOE, tmp_path_factory.mktemp("forms"))


@quickly
@given(lora=loras(QWEN3MOE))
def test_any_adapter_with_separate_experts_survives_every_form(lora, tmp_path_factory):
    _round(lora, QWEN3MOE, tmp_path_factory.mktemp("forms"))


@quickly
@given(lora=loras(LLAMA))
def test_any_dense_adapter_survives_every_form(lora, tmp_path_factory):
    _round(lora, LLAMA, tmp_path_factory.mktemp("forms"))


def _round(lora: Lora, plan: Plan, folder: Path) -> None:
    for fused in (False, True):
        base = plan.base(4, fused=fused and plan is not LLAMA)
        gguf = folder / f"{fused}.gguf"
        write_lora(lora, "gguf", gguf, base=base)
        assert_same_updates(read_lora(gguf), lora)
        write_lora(read_lora(gguf), "peft", folder / f"peft-{fused}", base=base)
        peft = read_lora(folder / f"peft-{fused}")
        assert_same_updates(peft, lora)
        write_lora(peft, "mlx", folder / f"mlx-{fused}", base=base)
        assert_same_updates(read_lora(folder / f"mlx-{fused}"), lora)
    write_lora(lora, "mlx", folder / "mlx")
    mlx = read_lora(folder / "mlx")
    assert mlx.alpha == pytest.approx(lora.alpha, rel=1e-12)
    assert_same_numbers(replace(mlx, alpha=lora.alpha), lora)


def test_the_forms_are_told_apart(tmp_path):
    lora = make_lora(LLAMA)
    write_lora(lora, "mlx", tmp_path / "m")
    write_lora(lora, "peft", tmp_path / "p")
    write_lora(lora, "gguf", tmp_path / "g", base=LLAMA.base(2))
    assert [form_of(tmp_path / name) for name in ("m", "p", "g")] == ["mlx", "peft", "gguf"]
    (tmp_path / "other").mkdir()
    (tmp_path / "text").write_text("no adapter")
    assert [form_of(tmp_path / name) for name in ("other", "text", "none")] == [None, None, None]
    with pytest.raises(AdapterError, match="none is missing"):
        read_lora(tmp_path / "none")
    with pytest.raises(AdapterError, match="holds no adapter"):
        read_lora(tmp_path / "text")


def peft_folder(tmp_path: Path, lora: Lora, **config: object) -> Path:
    folder = tmp_path / "changed"
    write_lora(lora, "peft", folder, force=True)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    lora = make_lora(LLAMA, rank=4, alpha=4.0)
    found = read_lora(peft_folder(tmp_path, lora, use_rslora=True))
    assert found.scale == 2.0
    assert_same_updates(found, replace(lora, alpha=8.0))


def test_an_alpha_of_some_modules_goes_into_their_b(tmp_path):
    lora = make_lora(LLAMA, rank=2, alpha=4.0)
    found = read_lora(peft_folder(tmp_path, lora, alpha_pattern={"q_proj": 6, "^lost": 1}))
    scaled = {
        name: LoraWeight(name, weight.a, weight.b * np.float32(1.5)) if "q_proj" in name else weight
        for name, weight in lora.weights.items()
    }
    assert_same_updates(found, replace(lora, weights=scaled))


def test_ranks_that_differ_are_filled_up_to_the_largest(tmp_path):
    small, large = make_lora(LLAMA, rank=2, alpha=4.0), make_lora(LLAMA, rank=5, alpha=10.0)
    wide = {name: weight for name, weight in large.weights.items() if "layers.1.mlp" in name}
    ranks = {
        "model.layers.1.mlp.up_proj": 5,
        r"^model\.layers\.1\.mlp\.down_proj": 5,
        "layers.1.mlp.gate_proj": 5,
    }
    alphas = {"layers.1.mlp.up_proj": 10}
    folder = peft_folder(tmp_path, small, rank_pattern=ranks, alpha_pattern=alphas)
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, weight in wide.items():
        tensors[f"base_model.model.model.{name}.lora_A.weight"] = weight.a
        tensors[f"base_model.model.model.{name}.lora_B.weight"] = weight.b
    save_file(tensors, folder / "adapter_model.safetensors")
    found = read_lora(folder)
    assert found.rank == 5
    assert all(weight.rank == 5 for weight in found.weights.values())
    # up_proj has a pattern for its alpha: 10 / 5 is the common scale. The others have 4 / 5.
    expected = dict(small.weights)
    for name, weight in wide.items():
        factor = 1.0 if "up_proj" in name else 0.4
        expected[name] = LoraWeight(name, weight.a, weight.b * np.float32(factor))
    assert_same_updates(found, replace(small, weights=expected))


@pytest.mark.parametrize("plan", [QWEN35MOE, QWEN3MOE])
def test_an_adapter_of_gate_alone_or_down_alone_is_written_and_read(plan, tmp_path):
    for kind in ("gate_proj", "up_proj", "down_proj"):
        lora = make_lora(plan, kinds=[f"mlp.switch_mlp.{kind}"])
        write_lora(lora, "peft", tmp_path / kind, base=plan.base(2))
        assert_same_updates(read_lora(tmp_path / kind), lora)


def test_bf16_is_read_exactly(tmp_path):
    lora = make_lora(LLAMA)
    write_lora(lora, "mlx", tmp_path / "a")
    path = tmp_path / "a" / "adapters.safetensors"
    halves = {}
    for name, array in load_file(path).items():
        halves[name] = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    data = b"".join(array.tobytes() for array in halves.values())
    header, at = {}, 0
    for name, array in halves.items():
        entry = {"dtype": "BF16", "shape": list(array.shape)}
        header[name] = entry | {"data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    for name, weight in read_lora(tmp_path / "a").weights.items():
        expected = (lora.weights[name].a.view(np.uint32) >> 16 << 16).view(np.float32)
        np.testing.assert_array_equal(weight.a, expected)


def test_rounding_to_f16_is_measured_and_overflow_refused(tmp_path):
    lora = make_lora(LLAMA)
    written = write_lora(lora, "mlx", tmp_path / "half", dtype="f16")
    assert written.dtype == "f16"
    assert 0 < written.rounding < 2e-3
    assert_same_updates(read_lora(tmp_path / "half"), lora, tolerance=5e-3)

    name, weight = next(iter(lora.weights.items()))
    large = replace(lora, weights={name: replace(weight, b=weight.b * 1e6)})
    write_lora(large, "mlx", tmp_path / "large")
    with pytest.raises(AdapterError, match="isn't finite in f16"):
        write_lora(large, "mlx", tmp_path / "large-half", dtype="f16")
    assert not (tmp_path / "large-half").exists()


def test_nan_is_read_as_nan(tmp_path):
    lora = make_lora(LLAMA, kinds=["self_attn.v_proj"])
    name, weight = next(iter(lora.weights.items()))
    sick = replace(lora, weights={name: replace(weight, b=np.full_like(weight.b, np.nan))})
    for form in ("mlx", "peft"):
        write_lora(sick, form, tmp_path / form)
        assert np.isnan(read_lora(tmp_path / form).weights[name].b).all()
    with pytest.raises(AdapterError, match="isn't finite"):
        write_lora(sick, "gguf", tmp_path / "sick.gguf", base=LLAMA.base(2))


def test_what_is_there_is_never_replaced_unasked(tmp_path):
    lora = make_lora(LLAMA)
    write_lora(lora, "mlx", tmp_path / "a")
    with pytest.raises(AdapterError, match="is there already"):
        write_lora(lora, "peft", tmp_path / "a")
    assert form_of(tmp_path / "a") == "mlx"
    write_lora(lora, "peft", tmp_path / "a", force=True)
    assert form_of(tmp_path / "a") == "peft"
    write_lora(lora, "gguf", tmp_path / "a", base=LLAMA.base(2), force=True)
    assert form_of(tmp_path / "a") == "gguf"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat").touch()
    with pytest.raises(AdapterError, match="isn't replaced"):
        write_lora(lora, "peft", tmp_path / "photos", force=True)
    (tmp_path / "model.gguf").write_bytes(b"GGUF, a model of 20 GB")
    with pytest.raises(AdapterError, match="is no adapter; it isn't replaced"):
        write_lora(lora, "gguf", tmp_path / "model.gguf", base=LLAMA.base(2), force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "model.gguf", "photos"]


def test_a_failed_write_leaves_the_old_adapter_and_no_trace(tmp_path):
    lora = make_lora(LLAMA)
    write_lora(lora, "mlx", tmp_path / "a")
    other = make_lora(LLAMA, layers=range(5, 6))
    with pytest.raises(AdapterError, match="the base doesn't have"):
        write_lora(other, "gguf", tmp_path / "a", base=LLAMA.base(2), force=True)
    assert_same_numbers(read_lora(tmp_path / "a"), lora)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_can_not_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="can't be written"):
        write_lora(make_lora(LLAMA), "mlx", tmp_path / "file" / "below")


@pytest.mark.parametrize(("form", "formats"), [("mlx", "f16+f32"), ("peft", "f32")])
def test_what_is_told_of_the_numbers_is_what_the_file_holds(form, formats, tmp_path):
    """PEFT's form fuses gate and up: a half of either becomes float32 beside the other."""
    lora = make_lora(QWEN35MOE, dtype=np.float16, kinds=[GATE, UP])
    ups = {
        name: LoraWeight(name, weight.a.astype(np.float32), weight.b.astype(np.float32))
        for name, weight in lora.weights.items()
        if weight.kind == UP
    }
    mixed = replace(lora, weights={**lora.weights, **ups})
    written = write_lora(mixed, form, tmp_path / form)
    assert (written.dtype, written.rounding) == (formats, 0.0)
    (weights,) = (tmp_path / form).glob("*.safetensors")
    kinds = {
        {"float16": "f16", "float32": "f32"}[t.dtype.name] for t in load_file(weights).values()
    }
    assert "+".join(sorted(kinds)) == formats


@pytest.mark.parametrize(("fused", "formats"), [(False, "f16"), (True, "f16+f32")])
def test_a_gguf_tells_its_numbers_too(fused, formats, tmp_path):
    """Fused, the rank doubles, and float32 takes up what keeps the scale."""
    lora = make_lora(QWEN35MOE, dtype=np.float16, kinds=[GATE, UP])
    out = tmp_path / "a.gguf"
    written = write_lora(lora, "gguf", out, base=QWEN35MOE.base(2, fused=fused))
    assert written.dtype == formats
    names = {GGMLQuantizationType.F16: "f16", GGMLQuantizationType.F32: "f32"}
    kinds = {names[tensor.tensor_type] for tensor in GGUFReader(out).tensors}
    assert "+".join(sorted(kinds)) == formats
