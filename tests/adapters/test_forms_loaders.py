"""The forms, loaded by those who will load them: mlx_lm, PEFT on transformers, and llama.cpp."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

from adapters.catalog import SHIPPED
from adapters.forms import read_lora, write_lora
from tests.adapters.forms_lora import QWEN3MOE, assert_same_updates, make_lora
from tests.adapters.forms_tiny import KINDS, PROMPT, Tiny, add_by_hand, make_tiny, torch_logits

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny()


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
    summed = add_by_hand(tiny.model, tiny.lora)
    np.testing.assert_allclose(with_peft, torch_logits(summed), atol=1e-4)


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
    for name, array in load_file(tmp_path / "mlx" / "adapters.safetensors").items():
        np.testing.assert_array_equal(np.array(adapted[name]), array)


def test_peft_loads_the_separate_experts_of_a_qwen3_moe_and_answers_as_mlx_lm(tmp_path):
    """PEFT fuses them itself, for transformers 5 holds them so."""
    import mlx.core as mx
    import torch
    from mlx_lm.models.qwen3_moe import Model, ModelArgs
    from mlx_lm.tuner.utils import load_adapters
    from peft import PeftModel
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {
        **{"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "head_dim": 16},
        **{"num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 24},
        **{"moe_intermediate_size": 8, "num_experts": 3, "num_experts_per_tok": 2},
        **{"norm_topk_prob": True, "tie_word_embeddings": False, "decoder_sparse_step": 1},
        **{"mlp_only_layers": [], "rms_norm_eps": 1e-6, "max_position_embeddings": 64},
    }
    base = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, rope_theta=10000.0)).eval()
    with torch.no_grad():
        for weight in base.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    lora = make_lora(QWEN3MOE)
    write_lora(lora, "peft", tmp_path / "peft")
    write_lora(lora, "mlx", tmp_path / "mlx")
    plain = torch_logits(base)
    weights = {name: mx.array(weight.numpy()) for name, weight in base.state_dict().items()}
    for layer in range(2):
        mlp = f"model.layers.{layer}.mlp."
        gate_up = weights.pop(f"{mlp}experts.gate_up_proj")
        weights[f"{mlp}switch_mlp.gate_proj.weight"] = gate_up[:, :8]
        weights[f"{mlp}switch_mlp.up_proj.weight"] = gate_up[:, 8:]
        weights[f"{mlp}switch_mlp.down_proj.weight"] = weights.pop(f"{mlp}experts.down_proj")
    model = Model(ModelArgs.from_dict({"model_type": "qwen3_moe", "rope_theta": 10000.0, **sizes}))
    model.load_weights(list(weights.items()), strict=True)
    np.testing.assert_allclose(mlx_logits(model), plain, atol=1e-3)
    load_adapters(model, str(tmp_path / "mlx"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = torch_logits(PeftModel.from_pretrained(base, tmp_path / "peft").eval())
    assert np.abs(adapted - plain).max() > 0.1
    np.testing.assert_allclose(mlx_logits(model), adapted, atol=1e-3)
