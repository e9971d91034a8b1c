"""One row on its way through the engine: what the asyncio side hands to the model's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.adapter import Adapter
from adapters.engines.base import Delta, Sampling
from adapters.mix import Mix

if TYPE_CHECKING:
    from adapters.engines.mlx.grammar import Grammar


Setup = tuple[Mix, float]
"""A mix, and the gain of the marked neurons."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt. ``boundary`` is how many of ``tokens`` the next turn will begin with.

    ``grammar`` is what the answer must keep, where a schema was given.
    """

    tokens: list[int]
    boundary: int
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A row to run. ``mix`` is over the keys of adapter versions, which ``adapters`` says.

    ``emit`` takes the row's deltas, or the one error that ends it, from any thread.
    ``max_tokens`` is what the request and the context leave. ``reuse`` allows a kept prefix.
    ``gain`` is what the marked neurons are multiplied by.
    """

    row: int
    prompt: Prompt
    mix: Mix
    adapters: Mapping[str, Adapter]
    sampling: Sampling
    max_tokens: int
    reuse: bool
    emit: Callable[[Delta | Exception], None]
    gain: float = 1.0

    @property
    def setup(self) -> Setup:
        """What the model computes with: a state of one is of no use to another."""
        return self.mix, self.gain
