"""What the MLX tests share."""

from __future__ import annotations

from gateway.bench import fast_blas

fast_blas.load()  # before MLX is imported, which then binds to it

import mlx.core as mx  # noqa: E402

# Else each fused kernel is compiled by a C++ compiler first: 40 s on a CPU.
mx.disable_compile()
