"""What a training run measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Held-out perplexity after ``step`` steps."""

    step: int
    perplexity: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What training gave: perplexities of the held-out answers, and how it went."""

    base_perplexity: float
    adapter_perplexity: float
    curve: tuple[CurvePoint, ...]
    seconds: float
