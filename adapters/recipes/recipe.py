"""One recipe: everything that training an adapter depends on, apart from its text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FAMILIES = ("foundations", "coding", "niches")
"""In the order in which they are trained."""

Family = Literal["foundations", "coding", "niches"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Hyperparameters(_Table):
    """How a LoRA is trained on one base.

    ``modules`` are names within a layer (``self_attn.q_proj``); ``layers`` counts from the last
    one, -1 is all. ``longest_row`` is in tokens; longer rows are cut. ``schedule`` is the learning
    rate's: ``cosine`` warms up over a tenth of the iterations and falls to zero.
    """

    base: str = Field(min_length=1)
    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    layers: int = Field(ge=-1)
    modules: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    learning_rate: float = Field(gt=0, lt=1)
    schedule: Literal["constant", "cosine"]
    iterations: int = Field(ge=1)
    batch_rows: int = Field(ge=1)
    longest_row: int = Field(ge=16)

    @property
    def scale(self) -> float:
        """What the update is multiplied with; mlx_lm calls it ``scale`` too."""
        return self.alpha / self.rank


class Recipe(_Table):
    """A domain's recipe: ``full`` for the large base, ``small`` for kiki's small default one.

    ``position`` is the domain's place in the curriculum, from 1. ``data`` is where the training
    text lies by convention. The limits, in units of 1024**3 bytes, and ``gradient_checkpoints`` are
    for mlx.
    """

    domain: str
    family: Family
    position: int = Field(ge=1)
    method: str
    data: str
    seed: int = Field(ge=0)
    checkpoint_every: int = Field(ge=1)
    memory_limit_gb: int = Field(ge=1)
    cache_limit_gb: int = Field(ge=1)
    gradient_checkpoints: bool
    full: Hyperparameters
    small: Hyperparameters
    path: Annotated[Path, Field(strict=False)]
