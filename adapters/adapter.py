"""One adapter on disk, and why one isn't served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["mlx", "peft", "gguf"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter folder (or GGUF file). The perplexities are on its own held-out text.

    ``fingerprint`` changes when any of its files does.
    """

    name: str
    path: Path
    form: Form
    rank: int
    alpha: float
    bytes: int
    base: str
    fingerprint: str
    base_perplexity: float | None = None
    adapter_perplexity: float | None = None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Refusal:
    """An adapter that isn't served, where it lies, and the reason with its fix."""

    name: str
    path: Path
    reason: str
