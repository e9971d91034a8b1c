"""What the MLX tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.bench import fast_blas

fast_blas.load()  # before MLX is imported, which then binds to it

import mlx.core as mx  # noqa: E402

from tests.adapters.engines.mlx.turns import Turns  # noqa: E402

# Else each fused kernel is compiled by a C++ compiler first: 40 s on a CPU.
mx.disable_compile()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    """The turns of the engines' threads, which go on at the end of the test."""
    turns = Turns(monkeypatch)
    yield turns
    turns.free()
