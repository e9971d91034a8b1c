"""Which adapters are stored in bfloat16, a kind of number that NumPy hasn't."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.adapter import Adapter
from adapters.folders import weight_files
from adapters.forms.tensors import read_header

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_bfloat16(adapter: Adapter) -> bool:
    """Whether all its weights are stored so. Raises AdapterError for a file that is damaged."""
    if adapter.form == "gguf":
        return False
    files = [file for file in weight_files(adapter.path) if file.suffix == ".safetensors"]
    kinds = {entry["dtype"] for file in files for entry in read_header(file)[0].values()}
    return kinds == {"BF16"}


def fits_bfloat16(array: NDArray[np.floating[Any]]) -> bool:
    """Whether every number is one of bfloat16: the first half of a float32, the second all 0.

    A number that was read from bfloat16 is, unless the reader had to multiply it.
    """
    if array.dtype != np.float32:
        return False
    return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
