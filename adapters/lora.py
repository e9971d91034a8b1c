"""One LoRA adapter in memory, whatever its form on disk: the canonical one that all others meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LoraWeight:
    """The update of one module: ``scale * b @ a``, added to its weight (outputs, inputs).

    ``module`` is the name below the model's layers list, as mlx_lm and transformers both call it:
    ``layers.3.self_attn.q_proj``, ``layers.0.mlp.switch_mlp.gate_proj``. A dense module has ``a``
    (rank, inputs) and ``b`` (outputs, rank); a mixture of experts has ``a`` (experts, rank,
    inputs) and ``b`` (experts, outputs, rank).
    """

    module: str
    a: NDArray[np.floating[Any]]
    b: NDArray[np.floating[Any]]

    @property
    def rank(self) -> int:
        return int(self.a.shape[-2])

    @property
    def experts(self) -> int | None:
        """How many experts the module has; None for a dense one."""
        return int(self.a.shape[0]) if self.a.ndim == 3 else None

    @property
    def layer(self) -> int:
        return int(self.module.split(".")[1])

    @property
    def kind(self) -> str:
        """The module without its layer: ``self_attn.q_proj``."""
        return self.module.split(".", 2)[2]


@dataclass(frozen=True, slots=True)
class Lora:
    """A whole adapter. ``weights`` maps module names to their updates; ``scale`` is alpha / rank.

    ``base`` is what the adapter's own config calls its base model, "" where it names none.
    """

    name: str
    base: str
    rank: int
    alpha: float
    weights: Mapping[str, LoraWeight]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank
