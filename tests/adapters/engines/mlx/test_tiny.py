"""The random model has the real one's architecture, and mlx_lm loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from click.testing import CliRunner
from mlx_lm.models.qwen3_5_moe import Model, ModelArgs

from adapters.engines.mlx.shapes import QWEN3_6_35B_A3B, TINY
from adapters.engines.mlx.slots import Slots, find_modules
from adapters.engines.mlx.tiny import main, random_adapter, random_model
from adapters.forms import read_lora
from adapters.mix import Mix
from tests.adapters.engines.mlx.reference import KINDS, arrays_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "model"
    done = CliRunner().invoke(main, [str(out), "--bits", "4", "--seed", "5", "--adapters", "1"])
    assert done.exit_code == 0, done.output
    assert "4 layers, 128 wide, 8 experts" in done.output
    return out


def load(folder: Path) -> tuple[Any, Any]:
    model, tokenizer, *_ = mlx_lm.load(str(folder))
    return model, tokenizer


def test_mlx_lm_loads_it_and_gets_the_same_weights(folder: Path) -> None:
    loaded = load(folder)[0]
    made = arrays_of(random_model(seed=5, bits=4).parameters())
    weights = arrays_of(loaded.parameters())
    assert weights.keys() == made.keys()
    assert all(mx.array_equal(weights[name], made[name]) for name in made)


def test_its_adapters_are_what_mlx_lm_loads(folder: Path) -> None:
    path = folder / "adapters" / "random-1"
    expected, _, *_ = mlx_lm.load(str(folder), adapter_path=str(path))
    model = load(folder)[0]
    slots = Slots.patch(model)
    slots.bind("a", read_lora(path))
    slots.use([Mix.single("a")])
    ids = mx.array([[1, 2, 3]])
    assert mx.array_equal(model(ids), expected(ids))


def test_text_and_chats_go_through_its_tokenizer(folder: Path) -> None:
    tokenizer = load(folder)[1]
    text = "Où est 3,3 kΩ ?\n<b>x</b>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True
    )
    assert tokenizer.decode(chat) == (
        f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token_ids == {TINY.vocab - 1}
    assert len(tokenizer) == TINY.vocab


def test_it_generates(folder: Path) -> None:
    model, tokenizer = load(folder)
    answers = [mlx_lm.generate(model, tokenizer, "Hello", max_tokens=8) for _ in range(2)]
    assert answers[0] == answers[1] != ""


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (arrays_of(random_model(seed=seed).parameters()) for seed in (1, 1, 2))
    assert all(mx.array_equal(one[name], same[name]) for name in one)
    name = "language_model.model.layers.0.mlp.gate.weight"
    assert not mx.array_equal(one[name], other[name])


def test_each_kind_of_module_can_be_adapted() -> None:
    model = random_model(bits=4)
    adapter = random_adapter(model, 1, layers=4)
    assert {weight.kind for weight in adapter.weights.values()} == set(KINDS)
    last = random_adapter(model, 1, layers=1)
    assert {weight.layer for weight in last.weights.values()} == {3}


def test_the_large_shape_has_the_real_ones_sizes() -> None:
    # Nothing is computed: mlx makes arrays when they are asked for.
    layers = replace(QWEN3_6_35B_A3B, layers=4)
    model = Model(ModelArgs.from_dict(layers.config()))
    modules = {name: place for name, (place, _) in find_modules(model).items()}
    sizes = {
        "layers.0.linear_attn.in_proj_qkv": (2048, 8192, None),
        "layers.0.linear_attn.in_proj_z": (2048, 4096, None),
        "layers.0.linear_attn.in_proj_b": (2048, 32, None),
        "layers.0.linear_attn.out_proj": (4096, 2048, None),
        "layers.3.self_attn.q_proj": (2048, 8192, None),
        "layers.3.self_attn.k_proj": (2048, 512, None),
        "layers.3.self_attn.o_proj": (4096, 2048, None),
        "layers.0.mlp.gate": (2048, 256, None),
        "layers.0.mlp.switch_mlp.up_proj": (2048, 512, 256),
        "layers.0.mlp.switch_mlp.down_proj": (512, 2048, 256),
        "layers.0.mlp.shared_expert.up_proj": (2048, 512, None),
        "lm_head": (2048, 248_320, None),
    }
    for name, (inputs, outputs, experts) in sizes.items():
        place = modules[name]
        assert (place.inputs, place.outputs, place.experts) == (inputs, outputs, experts), name
    a_layer = sum(v.size for v in arrays_of(model.parameters()).values()) - 2 * 2048 * 248_320
    assert a_layer / 4 * 40 + 2 * 2048 * 248_320 == pytest.approx(34.7e9, rel=0.01)
