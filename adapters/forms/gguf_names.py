"""What llama.cpp calls the modules that transformers and mlx_lm name, by architecture.

The names are those of gguf's own table for each architecture; the tests hold them against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
_DENSE = {
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.switch_mlp.gate_proj": "ffn_gate_exps",
    "mlp.switch_mlp.up_proj": "ffn_up_exps",
    "mlp.switch_mlp.down_proj": "ffn_down_exps",
}
_SHARED_EXPERT = {
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
_LINEAR_ATTENTION = {
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.out_proj": "ssm_out",
}
GATE, UP = "mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj"
DOWN = "mlp.switch_mlp.down_proj"
FUSED_KIND, FUSED = "mlp.switch_mlp.gate_up_proj", "ffn_gate_up_exps"  # both in one, in some files


@dataclass(frozen=True, slots=True)
class Architecture:
    """``modules`` maps a module's kind to its GGUF name.

    ``interleaved`` says that llama.cpp permutes the rows of q and k; ``linear_attention`` that
    the model has one, whose value heads llama.cpp puts in another order.
    """

    modules: Mapping[str, str]
    interleaved: bool = False
    linear_attention: bool = False


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture(_ATTENTION | _DENSE, interleaved=True),
        "qwen2": Architecture(_ATTENTION | _DENSE),
        "qwen3": Architecture(_ATTENTION | _DENSE),
        "qwen3moe": Architecture(_ATTENTION | _EXPERTS),
        "qwen35": Architecture(_ATTENTION | _LINEAR_ATTENTION | _DENSE, linear_attention=True),
        "qwen35moe": Architecture(
            _ATTENTION | _LINEAR_ATTENTION | _EXPERTS | _SHARED_EXPERT, linear_attention=True
        ),
    }
)

_TARGET = re.compile(r"blk\.(0|[1-9][0-9]{0,3})\.([a-z_]+)\.weight")


def target_of(module: str, architecture: str) -> str | None:
    """The tensor that ``module`` (``layers.3.self_attn.q_proj``) is; None where there is none."""
    _, layer, kind = module.split(".", 2)
    name = ARCHITECTURES[architecture].modules.get(kind)
    return None if name is None else f"blk.{layer}.{name}.weight"


def module_of(target: str, architecture: str) -> str | None:
    """The module of the tensor ``target`` (``blk.3.attn_q.weight``); None where there is none."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return None
    kinds = {name: kind for kind, name in ARCHITECTURES[architecture].modules.items()}
    if GATE in kinds.values():
        kinds[FUSED] = FUSED_KIND
    return f"layers.{match[1]}.{kinds[match[2]]}" if match[2] in kinds else None
