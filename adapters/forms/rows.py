"""The orders of rows and columns in which llama.cpp keeps some weights, and the way back.

* llama: its rotary embedding pairs neighbours, transformers' pairs halves; so within each head of
  q and k, row j of the first half is followed by row j of the second
  (``LlamaModel.permute`` of llama.cpp's conversion).
* qwen35, qwen35moe: the value heads of the linear attention are grouped by key head in
  transformers, and tiled in llama.cpp: the first of each group, then the second of each
  (``_LinearAttentionVReorderBase``). This concerns the rows of in_proj_a, _b, _z and of the value
  part of _qkv, and the columns of out_proj.

An update ``b @ a`` is reordered as its weight is: rows through ``b``, columns through ``a``.
Without it an adapter loads, and answers wrongly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adapters.forms.base import BaseShape, Heads
from adapters.forms.gguf_names import ARCHITECTURES
from adapters.lora import LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def permute_rows(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of a q or k projection, (heads * dim, n), in llama.cpp's order."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def unpermute_rows(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """The inverse of ``permute_rows``."""
    rows, columns = weight.shape
    neighbours = weight.reshape(heads, rows // heads // 2, 2, columns)
    return neighbours.swapaxes(1, 2).reshape(rows, columns)


def has_own_order(kind: str, architecture: str) -> bool:
    """Whether llama.cpp keeps the modules of ``kind`` in another order than transformers."""
    form = ARCHITECTURES[architecture]
    rotary = form.interleaved and kind in ("self_attn.q_proj", "self_attn.k_proj")
    return rotary or (form.linear_attention and kind.startswith("linear_attn."))


def to_llamacpp(weight: LoraWeight, base: BaseShape) -> LoraWeight:
    """``weight`` with its rows and columns in llama.cpp's order for ``base``."""
    return _reorder(weight, base, there=True)


def from_llamacpp(weight: LoraWeight, base: BaseShape) -> LoraWeight:
    """The inverse of ``to_llamacpp``."""
    return _reorder(weight, base, there=False)


def _reorder(weight: LoraWeight, base: BaseShape, *, there: bool) -> LoraWeight:
    if not has_own_order(weight.kind, base.architecture):
        return weight
    part, _, name = weight.kind.rpartition(".")
    if part == "linear_attn":
        return _reorder_linear(weight, name, base.heads, there=there)
    heads = base.heads.query if name == "q_proj" else base.heads.key
    if heads == 0 or weight.experts is not None or weight.b.shape[0] % (2 * heads):
        raise _misfit(weight, weight.b.shape[-2])
    return replace(weight, b=(permute_rows if there else unpermute_rows)(weight.b, heads))


def _reorder_linear(weight: LoraWeight, name: str, heads: Heads, *, there: bool) -> LoraWeight:
    if heads.linear_key in (0, heads.linear_value):
        return weight
    if heads.linear_value % heads.linear_key:
        raise _misfit(weight, heads.linear_value)
    values = heads.linear_value * heads.linear_value_size
    keys = 2 * heads.linear_key * heads.linear_key_size
    sizes = {"out_proj": values, "in_proj_z": values, "in_proj_qkv": keys + values}
    found = weight.a.shape[-1] if name == "out_proj" else weight.b.shape[-2]
    if weight.experts is not None or found != sizes.get(name, heads.linear_value):
        raise _misfit(weight, found)
    if name == "out_proj":
        return replace(weight, a=_tile(weight.a.T, heads, there=there).T)
    if name == "in_proj_qkv":
        import numpy as np

        tiled = _tile(weight.b[keys:], heads, there=there)
        return replace(weight, b=np.concatenate([weight.b[:keys], tiled]))
    return replace(weight, b=_tile(weight.b, heads, there=there))


def _tile(rows: NDArray[Any], heads: Heads, *, there: bool) -> NDArray[Any]:
    """Value heads, (heads * size, n), from grouped by key head to tiled, or back."""
    groups, each = heads.linear_key, heads.linear_value // heads.linear_key
    first, second = (groups, each) if there else (each, groups)
    blocks = rows.reshape(first, second, rows.shape[0] // heads.linear_value, rows.shape[1])
    return blocks.swapaxes(0, 1).reshape(rows.shape)


def _misfit(weight: LoraWeight, size: int) -> AdapterError:
    return AdapterError(
        f"{weight.module} adapts {size} rows or columns, which the base's heads don't make.",
        fix="It was trained for another base model.",
    )
