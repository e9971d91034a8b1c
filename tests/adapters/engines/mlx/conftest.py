"""What the MLX tests share."""

from __future__ import annotations

import mlx.core as mx

from gateway.bench import fast_blas

# Else each fused kernel is compiled by a C++ compiler first: 40 s on a CPU.
mx.disable_compile()
fast_blas.load()
