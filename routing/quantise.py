"""Weight-only 8-bit quantisation in the layout of ONNX Runtime's `MatMulNBits` kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Weights that share one scale. On mpnet 128 is a fifth faster, with 2.5 times the error."""

ZERO_POINT = 128
"""What the kernel takes for zero where an 8-bit weight has no zero point of its own."""


def quantise_blocks(
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantises a linear layer's weight, symmetric around zero.

    Args:
        weight: (out, in) float32; `in` is a multiple of `BLOCK`.

    Returns:
        Codes of shape (out, in / BLOCK, BLOCK) and scales of shape (out, in / BLOCK);
        `(codes - 128) * scale` is the weight again, each within half a scale.
    """
    blocks = weight.reshape(weight.shape[0], -1, BLOCK)
    scales = np.abs(blocks).max(axis=-1) / np.float32(127)
    scales[scales == 0] = 1  # an all-zero block has no scale of its own
    codes = np.rint(blocks / scales[..., None]) + ZERO_POINT
    return codes.astype(np.uint8), scales
