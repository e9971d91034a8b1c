"""How mixes became active, and how long that took: what an engine tells who measures it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

SwapMethod = Literal["bind", "load", "compose", "restart"]
SWAP_METHODS: tuple[SwapMethod, ...] = get_args(SwapMethod)


class Swaps:
    """One engine's swaps. ``listener`` gets each with its seconds, from any thread.

    ``bind``: a row's adapters were in memory (mlx). ``load``: they were read from disk (mlx), or a
    server loaded them (vllm). ``compose``: a mix was made into one adapter (vllm). ``restart``:
    a server with another set of adapters took over (llamacpp). One that failed isn't counted.
    """

    def __init__(self) -> None:
        self.listener: Callable[[SwapMethod, float], None] = lambda method, seconds: None

    def count(self, method: SwapMethod, seconds: float) -> None:
        self.listener(method, seconds)

    @contextmanager
    def timed(self, method: SwapMethod) -> Iterator[None]:
        """Count what happens inside, unless it raises."""
        began = time.perf_counter()
        yield
        self.count(method, time.perf_counter() - began)
