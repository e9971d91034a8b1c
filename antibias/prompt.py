"""What the anti-bias stage asks of a language model, whichever engine answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a batch: (role, content) messages, and the adapter to run them on.

    ``adapter`` None is the base model. ``json_schema`` constrains the reply where the engine can.
    """

    messages: tuple[tuple[str, str], ...]
    adapter: str | None
    max_tokens: int
    json_schema: Mapping[str, object] | None = None
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A row's text, and the tokens it cost: prompt and completion as the engine counted them."""

    text: str
    tokens: int


Generate = Callable[[Sequence[Prompt]], Awaitable[Sequence[Reply]]]
"""Runs the rows together and returns their replies in order. May raise `kiki.errors.KikiError`."""

Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to unit vectors, shape (len(texts), dimension); called in a thread."""
