"""What ``kiki bench adapters`` can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Progress = Callable[[str, int, int], None]
ShapeName = Literal["tiny", "35b-a3b"]


@dataclass(frozen=True, slots=True)
class Options:
    """``layers`` of the random model, ``tokens`` of an answer, ``rounds`` of each comparison.

    ``shape`` names the random model that switching and decoding are measured on. With "35b-a3b"
    the panel on MLX runs on it too, with "tiny" on the small real model. ``vllm_shape`` is what
    composing is measured on: "smollm2", or hidden size and layers of a random Llama ("2048x16").
    """

    shape: ShapeName = "tiny"
    layers: int = 40
    tokens: int = 48
    rounds: int = 5
    vllm_shape: str = "smollm2"
