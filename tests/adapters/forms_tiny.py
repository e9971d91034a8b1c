"""A random Qwen3.6 in small on transformers, with an adapter of everything in it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.lora import Lora, LoraWeight
from tests.adapters.forms_lora import EXPERTS

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


def make_tiny() -> Tiny:
    """The model and its adapter, the same each time."""
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


def log_chances(model: Any) -> np.ndarray:
    """The natural logarithms of the next token's chances after each token of the prompt."""
    import torch

    return torch.log_softmax(torch.from_numpy(torch_logits(model)), dim=-1).numpy()


def add_by_hand(model: Any, lora: Lora) -> Any:
    """A copy of ``model`` with the updates of ``lora`` in its weights."""
    import torch

    model = copy.deepcopy(model)
    parameters = dict(model.model.language_model.named_parameters())
    with torch.no_grad():
        for name, weight in lora.weights.items():
            update = torch.from_numpy(lora.scale * (weight.b @ weight.a))
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
    return model
