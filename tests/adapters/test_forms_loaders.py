"""The forms, loaded by those who will load them: mlx_lm, PEFT on transformers, and llama.cpp."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

from adapters.catalog import SHIPPED
from adapters.forms import read_lora, write_lora
from adapters.lora import Lora, LoraWeight
from tests.adapters.forms_lora import EXPERTS, assert_same_updates

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

PROMPT = [3, 17, 42, 5, 60, 11, 8]
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 20,
    "intermediate_size": 24,
    "tie_word_embeddings": False,
}
KINDS = 17


@dataclass(frozen=True, slots=True)
class Tiny:
    """A random Qwen3.6 in small: transformers' model, its text config, and an adapter of all 17
    kinds of modules."""

    model: Any
    config: dict[str, Any]
    lora: Lora


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    import torch
    from transformers import (
        Qwen3_5MoeConfig,
        Qwen3_5MoeForConditionalGeneration,
        Qwen3_5MoeTextConfig,
    )

    torch.manual_seed(0)
    text = Qwen3_5MoeTextConfig(**SIZES)
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
              "out_hidden_size": 32}  # fmt: skip
    config = Qwen3_5MoeConfig(text_config=text.to_dict(), vision_config=vision)
    model = Qwen3_5MoeForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "conv" not in name:
                weight.normal_(0, 0.2)
    return Tiny(model, text.to_dict(), _adapter(model))


def _adapter(model: Any) -> Lora:
    """A random adapter of every adaptable weight; large enough to change the answers."""
    chance = np.random.default_rng(1)
    weights = {}

    def add(module: str, shape: tuple[int, ...]) -> None:
        *experts, outputs, inputs = shape
        a = chance.normal(size=(*experts, 2, inputs)).astype(np.float32) * 0.2
        b = chance.normal(size=(*experts, outputs, 2)).astype(np.float32) * 0.2
        weights[module] = LoraWeight(module, a, b)

    for name, weight in model.model.language_model.named_parameters():
        module, shape = name.removesuffix(".weight"), tuple(weight.shape)
        if module.endswith("experts.gate_up_proj"):
            stem = module.replace("experts.gate_up_proj", "switch_mlp.")
            for projection in ("gate_proj", "up_proj"):
                add(stem + projection, (shape[0], shape[1] // 2, shape[2]))
        elif module.endswith("experts.down_proj"):
            add(module.replace("experts", "switch_mlp"), shape)
        elif module.startswith("layers.") and weight.ndim == 2:
            add(module, shape)
    return Lora("tiny", "Qwen/Qwen3.6-35B-A3B", 2, 3.0, weights)


def torch_logits(model: Any) -> np.ndarray:
    import torch

    with torch.inference_mode():
        logits: np.ndarray = model(input_ids=torch.tensor([PROMPT])).logits[0].numpy()
    return logits


def mlx_model(tiny: Tiny) -> Any:
    import mlx.core as mx
    from mlx_lm.models.qwen3_5_moe import Model, ModelArgs

    model = Model(ModelArgs.from_dict({"model_type": "qwen3_5_moe", "text_config": tiny.config}))
    weights = {
        name: mx.array(weight.detach().numpy())
        for name, weight in tiny.model.state_dict().items()
        if "visual" not in name
    }
    model.load_weights(list(model.sanitize(weights).items()), strict=True)
    return model


def mlx_logits(model: Any) -> np.ndarray:
    import mlx.core as mx

    model.eval()
    return np.array(model(mx.array([PROMPT]))[0])


@pytest.fixture(scope="module")
def with_peft(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The logits of the tiny model with the adapter in PEFT's form on it."""
    from peft import PeftModel

    folder = tmp_path_factory.mktemp("peft") / "adapter"
    write_lora(tiny.lora, "peft", folder)
    base = torch_logits(tiny.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(tiny.model, folder)
        adapted = torch_logits(model.eval())
        tiny.model.load_state_dict(model.unload().state_dict())
    np.testing.assert_array_equal(torch_logits(tiny.model), base)
    assert np.abs(adapted - base).max() > 0.1
    return adapted


def test_the_tiny_model_has_all_seventeen_kinds(tiny):
    assert len({weight.kind for weight in tiny.lora.weights.values()}) == KINDS


def test_peft_answers_as_with_the_updates_added_by_hand(tiny, with_peft):
    import copy

    import torch

    model = copy.deepcopy(tiny.model)
    parameters = dict(model.model.language_model.named_parameters())
    with torch.no_grad():
        for name, weight in tiny.lora.weights.items():
            update = torch.from_numpy(tiny.lora.scale * (weight.b @ weight.a))
            if weight.experts is None:
                parameters[f"{name}.weight"] += update
            elif name.endswith("down_proj"):
                parameters[name.replace("switch_mlp", "experts")] += update
            else:
                stem, _, projection = name.rpartition(".")
                fused = parameters[stem.replace("switch_mlp", "experts") + ".gate_up_proj"]
                half = fused.shape[1] // 2
                rows = slice(None, half) if projection == "gate_proj" else slice(half, None)
                fused[:, rows] += update
    np.testing.assert_allclose(with_peft, torch_logits(model), atol=1e-4)


def test_mlx_lm_loads_the_mlx_form_and_answers_as_peft_does(tiny, with_peft, tmp_path):
    from mlx_lm.tuner.utils import load_adapters

    write_lora(tiny.lora, "mlx", tmp_path / "mlx")
    model = mlx_model(tiny)
    np.testing.assert_allclose(mlx_logits(model), torch_logits(tiny.model), atol=1e-3)
    load_adapters(model, str(tmp_path / "mlx"))  # refuses unknown names and other shapes
    np.testing.assert_allclose(mlx_logits(model), with_peft, atol=1e-3)


def test_what_mlx_lm_trains_in_the_last_layers_is_read_and_written_for_them(tiny, tmp_path):
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

    parameters = {"rank": 4, "scale": 5.0, "dropout": 0.0}
    model = mlx_model(tiny)
    model.freeze()
    linear_to_lora_layers(model, 2, parameters)
    trained = dict(tree_flatten(model.trainable_parameters()))
    folder = tmp_path / "trained"
    folder.mkdir()
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "adapters.safetensors"), trained)

    lora = read_lora(folder)
    assert (lora.rank, lora.scale) == (4, 5.0)
    assert {weight.kind for weight in lora.weights.values()} == {
        weight.kind for weight in tiny.lora.weights.values()
    }
    assert {weight.layer for weight in lora.weights.values()} == {2, 3}
    write_lora(lora, "mlx", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "adapter_config.json").read_text())["num_layers"] == 2
    other = mlx_model(tiny)
    load_adapters(other, str(tmp_path / "again"))
    found = dict(tree_flatten(other.parameters()))
    for name, array in trained.items():
        np.testing.assert_array_equal(np.array(found[name]), np.array(array))


def test_what_peft_trains_on_fused_experts_is_read_exactly(tiny, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["q_proj", "in_proj_qkv", "shared_expert_gate"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj", "mlp.gate.weight"],
        init_lora_weights=False,
        rank_pattern={"experts.down_proj": 2},
        exclude_modules=r".*visual.*",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(tiny.model, config)
        model.save_pretrained(tmp_path / "trained")
        deltas = {
            name: module.get_delta_weight("default").detach().numpy()
            for name, module in model.named_modules()
            if hasattr(module, "get_delta_weight")
        }
        with torch.no_grad():
            tiny.model.load_state_dict(model.unload().state_dict())
    lora = read_lora(tmp_path / "trained")
    prefix = "base_model.model.model.language_model."
    for name, weight in lora.weights.items():
        update = lora.scale * (weight.b @ weight.a)
        path = prefix + name.replace("switch_mlp.down_proj", "experts")
        path = path.replace("switch_mlp.gate_proj", "experts.base_layer")
        expected = deltas[path.replace("switch_mlp.up_proj", "experts.base_layer")]
        half = expected.shape[-2] // 2
        if name.endswith("switch_mlp.gate_proj"):
            expected = expected[:, :half]
        elif name.endswith("switch_mlp.up_proj"):
            expected = expected[:, half:]
        np.testing.assert_allclose(update, expected, atol=1e-6, err_msg=name)
    write_lora(lora, "mlx", tmp_path / "mlx")
    assert_same_updates(read_lora(tmp_path / "mlx"), lora)


def test_a_shipped_adapter_has_the_names_and_shapes_that_mlx_lm_gives(tmp_path):
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.utils import load_adapters

    write_lora(read_lora(SHIPPED / "shell"), "mlx", tmp_path / "mlx")
    model = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=576,
            num_hidden_layers=30,
            intermediate_size=64,  # no shipped adapter changes the MLP
            num_attention_heads=9,
            num_key_value_heads=3,
            rms_norm_eps=1e-5,
            vocab_size=64,
        )
    )
    load_adapters(model, str(tmp_path / "mlx"))
    adapted = dict(tree_flatten(model.parameters()))
    for name, array in mx.load(str(tmp_path / "mlx" / "adapters.safetensors")).items():
        np.testing.assert_array_equal(np.array(adapted[name]), np.array(array))
