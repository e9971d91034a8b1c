"""The GGUF form: llama.cpp's names and orders, and llama.cpp itself on a Qwen3.6 in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFReader, GGUFWriter, get_tensor_name_map

from adapters.forms import BaseShape, Heads, read_base_shape, read_lora, write_lora
from adapters.forms.gguf_names import ARCHITECTURES, module_of, target_of
from adapters.forms.rows import from_llamacpp, to_llamacpp
from adapters.lora import Lora
from kiki.errors import AdapterError
from tests.adapters.forms_lora import (
    HEADS,
    LLAMA,
    QWEN3MOE,
    QWEN35MOE,
    assert_same_numbers,
    assert_same_updates,
    make_lora,
)

LINEAR = [kind for kind in QWEN35MOE.sizes if kind.startswith("linear_attn.")]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_name_is_the_one_in_ggufs_own_table(architecture):
    number = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    table = get_tensor_name_map(MODEL_ARCH(number), 4)
    for kind in ARCHITECTURES[architecture].modules:
        target = target_of(f"layers.2.{kind}", architecture)
        transformers = f"model.layers.2.{kind.replace('switch_mlp', 'experts')}"
        assert target == f"{table.get_name(transformers)}.weight"
        assert module_of(target, architecture) == f"layers.2.{kind}"


def llamacpp_order(kind: str, heads: Heads) -> tuple[np.ndarray, np.ndarray]:
    """Where each row and column of a base weight comes from, as llama.cpp's converter moves them:
    value head ``v`` of key group ``k`` goes from place ``k * each + v`` to ``v * groups + k``."""
    groups, each = heads.linear_key, heads.linear_value // heads.linear_key
    moved = [k * each + v for v in range(each) for k in range(groups)]
    size = 1 if kind.endswith(("in_proj_a", "in_proj_b")) else heads.linear_value_size
    values = np.array([head * size + i for head in moved for i in range(size)])
    outputs, inputs = QWEN35MOE.sizes[kind]
    rows, columns = np.arange(outputs), np.arange(inputs)
    if kind.endswith("out_proj"):
        columns = values
    elif kind.endswith("in_proj_qkv"):
        keys = 2 * heads.linear_key * heads.linear_key_size
        rows = np.concatenate([np.arange(keys), keys + values])
    else:
        rows = values
    return rows, columns


@pytest.mark.parametrize("kind", LINEAR)
def test_an_update_is_reordered_as_the_weight_it_is_for(kind):
    base = QWEN35MOE.base(2)
    weight = make_lora(QWEN35MOE, kinds=[kind]).weights[f"layers.0.{kind}"]
    rows, columns = llamacpp_order(kind, HEADS)
    full = np.random.default_rng(5).normal(size=QWEN35MOE.sizes[kind])
    stored = to_llamacpp(weight, base)
    expected = (full + weight.b.astype(float) @ weight.a)[rows][:, columns]
    found = full[rows][:, columns] + stored.b.astype(float) @ stored.a
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not np.array_equal(rows, np.arange(len(rows))) or len(columns) != len(rows)
    back = from_llamacpp(stored, base)
    np.testing.assert_array_equal(back.a, weight.a)
    np.testing.assert_array_equal(back.b, weight.b)


def test_experts_have_three_axes_and_the_shared_gate_one_row(tmp_path):
    lora = make_lora(QWEN35MOE)
    write_lora(lora, "gguf", tmp_path / "a.gguf", base=QWEN35MOE.base(2))
    found = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "a.gguf").tensors}
    assert len(found) == 2 * len(lora.weights)
    assert found["blk.0.ffn_gate_exps.weight.lora_a"].shape == (3, 2, 16)
    assert found["blk.0.ffn_gate_exps.weight.lora_b"].shape == (3, 8, 2)
    assert found["blk.0.ffn_gate_inp_shexp.weight.lora_b"].shape == (1, 2)
    assert_same_numbers(read_lora(tmp_path / "a.gguf"), lora)


def test_gate_and_up_are_fused_where_the_base_has_them_so(tmp_path):
    lora = make_lora(QWEN35MOE)
    write_lora(lora, "gguf", tmp_path / "a.gguf", base=QWEN35MOE.base(2, fused=True))
    found = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "a.gguf").tensors}
    a, b = (found[f"blk.1.ffn_gate_up_exps.weight.lora_{half}"] for half in "ab")
    gate, up = (lora.weights[f"layers.1.mlp.switch_mlp.{half}_proj"] for half in ("gate", "up"))
    expected = np.concatenate([gate.b @ gate.a, up.b @ up.a], axis=1) * lora.scale
    # llama.cpp's scale for a weight is alpha over that weight's own rank, 4 here.
    np.testing.assert_allclose(b @ a * (lora.alpha / 4), expected, atol=1e-5)


def test_what_llamacpp_has_no_name_for_is_refused_by_name_or_left_out_when_asked(tmp_path):
    lora = make_lora(QWEN35MOE)
    base = QWEN3MOE.base(2)
    with pytest.raises(AdapterError, match=r"linear_attn\.in_proj_a.*shared_expert_gate.*skip"):
        write_lora(lora, "gguf", tmp_path / "a.gguf", base=base)
    written = write_lora(lora, "gguf", tmp_path / "a.gguf", base=base, skip_unsupported=True)
    assert set(written.dropped) == QWEN35MOE.sizes.keys() - QWEN3MOE.sizes.keys()
    found = read_lora(tmp_path / "a.gguf")
    kept = {name: lora.weights[name] for name in found.weights}
    assert {weight.kind for weight in kept.values()} == QWEN3MOE.sizes.keys()
    assert_same_updates(found, Lora("", "", lora.rank, lora.alpha, kept))
    only = make_lora(QWEN35MOE, kinds=LINEAR)
    with pytest.raises(AdapterError, match="adapts nothing but"):
        write_lora(only, "gguf", tmp_path / "b.gguf", base=base, skip_unsupported=True)


def test_a_base_of_other_sizes_is_refused(tmp_path):
    lora = make_lora(QWEN35MOE)
    base = QWEN35MOE.base(2)
    few = {**base.weights, "blk.1.ffn_up_exps.weight": (2, 8, 16)}
    with pytest.raises(AdapterError, match="3 x 8 x 16; the base's is 2 x 8 x 16"):
        write_lora(lora, "gguf", tmp_path / "a", base=BaseShape("qwen35moe", HEADS, 2, few))
    heads = Heads(4, 2, linear_key=2, linear_value=4, linear_key_size=4, linear_value_size=2)
    with pytest.raises(AdapterError, match="the base's heads don't make"):
        write_lora(
            lora, "gguf", tmp_path / "a", base=BaseShape("qwen35moe", heads, 2, base.weights)
        )
    with pytest.raises(AdapterError, match="made for one base"):
        write_lora(make_lora(LLAMA), "gguf", tmp_path / "a")


def test_the_shape_of_a_real_base_is_read(base_gguf):
    shape = read_base_shape(base_gguf)
    assert (shape.architecture, shape.layers) == ("llama", 30)
    assert shape.heads == Heads(9, 3)
    assert len(shape.weights) == 272
    assert shape.weights["token_embd.weight"] == (49152, 576)
    assert shape.weights["blk.29.attn_k.weight"] == (192, 576)
    assert shape.weights["blk.0.attn_norm.weight"] == (1, 576)


def write_qwen35moe(model: Any, config: dict[str, Any], path: Path, *, fused: bool) -> None:
    """A transformers Qwen3.6 as GGUF, as llama.cpp's converter writes it, in F32.

    ``fused`` keeps the experts' gate and up in one tensor, as some files do.
    """
    heads = Heads(
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["linear_num_key_heads"],
        config["linear_num_value_heads"],
        config["linear_key_head_dim"],
        config["linear_value_head_dim"],
    )
    writer = GGUFWriter(path, "qwen35moe")
    writer.add_context_length(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads.query)
    writer.add_head_count_kv(heads.key)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_rope_dimension_sections([1, 1, 0, 0])  # equal positions in a text, whatever it is
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(heads.linear_key_size)
    writer.add_ssm_group_count(heads.linear_key)
    writer.add_ssm_time_step_rank(heads.linear_value)
    writer.add_ssm_inner_size(heads.linear_value * heads.linear_value_size)
    writer.add_full_attention_interval(4)
    _add_tokens(writer, config["vocab_size"])
    table = get_tensor_name_map(MODEL_ARCH.QWEN35MOE, config["num_hidden_layers"])
    for name, weight in model.state_dict().items():
        if "visual" in name:
            continue
        plain = name.replace("model.language_model.", "model.")
        for part, array in _converted(plain, weight.float().numpy(), heads, fused=fused):
            target = table.get_name(part, try_suffixes=(".weight", ".bias"))
            assert target is not None, part
            writer.add_tensor(target, np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _converted(
    name: str, array: np.ndarray, heads: Heads, *, fused: bool
) -> list[tuple[str, np.ndarray]]:
    groups, each = heads.linear_key, heads.linear_value // heads.linear_key
    moved = np.array([k * each + v for v in range(each) for k in range(groups)])
    size = heads.linear_value_size
    rows = np.array([head * size + i for head in moved for i in range(size)])
    keys = 2 * heads.linear_key * heads.linear_key_size
    if name.endswith("experts.gate_up_proj") and not fused:
        half = array.shape[1] // 2
        stem = name.removesuffix("gate_up_proj")
        parts = (("gate_proj", array[:, :half]), ("up_proj", array[:, half:]))
        return [(f"{stem}{part}.weight", piece) for part, piece in parts]
    if name.endswith(("experts.down_proj", "experts.gate_up_proj")):
        name += ".weight"
    elif name.endswith("A_log"):
        array = -np.exp(array[moved])
    elif name.endswith("dt_bias"):
        name, array = name.replace("dt_bias", "dt_proj.bias"), array[moved]
    elif "conv1d" in name or "in_proj_qkv" in name:
        array = array.squeeze()
        array = np.concatenate([array[:keys], array[keys:][rows]])
    elif name.endswith("in_proj_z.weight"):
        array = array[rows]
    elif name.endswith(("in_proj_a.weight", "in_proj_b.weight")):
        array = array[moved]
    elif name.endswith("linear_attn.out_proj.weight"):
        array = array[:, rows]
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        array = array + 1
    return [(name, array)]


def _add_tokens(writer: GGUFWriter, count: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([chr(0x100 + number) for number in range(count)])
    writer.add_token_types([1] * count)
    writer.add_token_merges(["\u0100 \u0101"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)


@pytest.mark.parametrize("fused", [False, True])
def test_llamacpp_answers_with_all_seventeen_kinds_as_the_summed_weights_do(fused, tmp_path):
    from adapters.training.check import llamacpp_positions
    from tests.adapters.forms_tiny import PROMPT, add_by_hand, log_chances, make_tiny

    tiny = make_tiny()
    base, adapter = tmp_path / "base.gguf", tmp_path / "adapter.gguf"
    write_qwen35moe(tiny.model, tiny.config, base, fused=fused)
    write_lora(tiny.lora, "gguf", adapter, base=read_base_shape(base))
    assert_same_updates(read_lora(adapter), tiny.lora)

    adapted = log_chances(add_by_hand(tiny.model, tiny.lora))
    plain = log_chances(tiny.model)
    prefixes = [PROMPT[: place + 1] for place in range(1, len(PROMPT))]
    for place, found in enumerate(llamacpp_positions(base, adapter, prefixes), start=1):
        assert len(found.logprobs) == tiny.config["vocab_size"]
        chances = np.array([found.logprobs[token] for token in range(len(found.logprobs))])
        np.testing.assert_allclose(chances, adapted[place], atol=2e-3)
        assert np.abs(chances - plain[place]).max() > 0.05
