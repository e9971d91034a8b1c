"""The sizes of a model of Qwen3.6-35B-A3B's architecture, and the config that mlx_lm reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes; the names behind them are the config's. One layer in four has full attention."""

    layers: int = 4  # num_hidden_layers
    hidden: int = 128  # hidden_size
    vocab: int = 320  # vocab_size
    heads: int = 4  # num_attention_heads
    kv_heads: int = 2  # num_key_value_heads
    head_dim: int = 32
    linear_key_heads: int = 2  # linear_num_key_heads
    linear_value_heads: int = 4  # linear_num_value_heads
    linear_head_dim: int = 32  # linear_key_head_dim and linear_value_head_dim
    experts: int = 8  # num_experts
    chosen: int = 4  # num_experts_per_tok
    expert_hidden: int = 64  # moe_intermediate_size and shared_expert_intermediate_size
    context: int = 4096  # max_position_embeddings

    def config(self) -> dict[str, Any]:
        """``config.json`` of a model without its vision tower, which mlx_lm leaves out too."""
        text = {
            "model_type": "qwen3_5_moe_text",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "linear_num_key_heads": self.linear_key_heads,
            "linear_num_value_heads": self.linear_value_heads,
            "linear_key_head_dim": self.linear_head_dim,
            "linear_value_head_dim": self.linear_head_dim,
            "linear_conv_kernel_dim": 4,
            "full_attention_interval": 4,
            "num_experts": self.experts,
            "num_experts_per_tok": self.chosen,
            "moe_intermediate_size": self.expert_hidden,
            "shared_expert_intermediate_size": self.expert_hidden,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000_000,
                "partial_rotary_factor": 0.25,
            },
        }
        return {
            "architectures": ["Qwen3_5MoeForConditionalGeneration"],
            "model_type": "qwen3_5_moe",
            "tie_word_embeddings": False,
            "text_config": text,
        }


TINY = Shape()

# As the model card of Qwen3.6-35B-A3B and the defaults of transformers' Qwen3_5MoeTextConfig say.
QWEN3_6_35B_A3B = Shape(
    layers=40,
    hidden=2048,
    vocab=248_320,
    heads=16,
    kv_heads=2,
    head_dim=256,
    linear_key_heads=16,
    linear_value_heads=32,
    linear_head_dim=128,
    experts=256,
    chosen=8,
    expert_hidden=512,
    context=262_144,
)

SHAPES = {"tiny": TINY, "35b-a3b": QWEN3_6_35B_A3B}
