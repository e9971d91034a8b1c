"""Multiplying the inputs of modules, neuron by neuron.

A scale is (rows, inputs) for a dense module, (rows, experts, inputs) for one with experts; one row
holds for every row of the batch. Where it is 1 an input keeps its bits.
"""

from __future__ import annotations

import mlx.core as mx

from kiki.errors import EngineError


def scale_dense(scale: mx.array | None, x: mx.array) -> mx.array:
    """``x`` (rows, ..., inputs) times the scale of its row."""
    if scale is None:
        return x
    shape = (scale.shape[0], *(1,) * (x.ndim - 2), scale.shape[1])
    return x * scale.astype(x.dtype).reshape(shape)


def scale_experts(
    scale: mx.array | None, x: mx.array, indices: mx.array, sorted_indices: bool
) -> mx.array:
    """``x`` times the scale of its row and its expert.

    Unsorted, ``x`` is (rows, tokens, chosen, 1, inputs) and ``indices`` (rows, tokens, chosen);
    sorted by expert, (pairs, 1, inputs) and (pairs,). Raises EngineError where it is sorted and
    the rows differ: which row a pair belongs to is lost there.
    """
    if scale is None:
        return x
    if scale.shape[0] == 1:
        chosen = scale[0][indices]
    elif sorted_indices:
        raise EngineError(
            "This model sorts tokens by expert in a block that loses the batch's rows.",
            fix="Amplify all rows of a batch alike on this model, or none.",
        )
    else:
        chosen = scale[mx.arange(scale.shape[0])[:, None, None], indices]
    return x * chosen.astype(x.dtype)[..., None, :]


def scale_sorted(
    scale: mx.array | None, x: mx.array, experts: mx.array, rows: mx.array
) -> mx.array:
    """``x`` (pairs, 1, inputs), sorted by expert; ``experts`` and ``rows`` (pairs,) say whose."""
    if scale is None:
        return x
    chosen = scale[0][experts] if scale.shape[0] == 1 else scale[rows, experts]
    return x * chosen.astype(x.dtype)[:, None, :]
