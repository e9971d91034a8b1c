"""What names a whole model gives its layers; a ``Lora`` itself only knows what is below them."""

from __future__ import annotations

import re
from collections.abc import Set

from adapters.forms.base import BaseShape
from adapters.lora import Lora

_NESTED_ARCHITECTURES = ("qwen35", "qwen35moe")
_NESTED_NAME = re.compile(r"qwen3[._-]?[56](?![0-9])", re.IGNORECASE)
_LINEAR_PROJECTIONS = ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b")


def is_nested(lora: Lora, base: BaseShape | None) -> bool:
    """Whether the base is a Qwen3.5 or 3.6, whose language model is a part of a larger one.

    Told from ``base`` where it is given, else from the linear attention's modules, which only
    they have so, or from the base's name.
    """
    if base is not None:
        return base.architecture in _NESTED_ARCHITECTURES
    return names_nested({weight.kind for weight in lora.weights.values()}, lora.base)


def names_nested(kinds: Set[str], base_name: str) -> bool:
    """Whether these kinds of modules, or the base's name, are those of a Qwen3.5 or 3.6."""
    own = {f"linear_attn.{name}" for name in _LINEAR_PROJECTIONS}
    if own & kinds:
        return True
    return _NESTED_NAME.search(base_name.replace("\\", "/").rpartition("/")[2]) is not None
