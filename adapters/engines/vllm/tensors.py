"""Safetensors files as memory maps: read without a copy, and filled in place.

Composing is bound by memory: an adapter of the production model is 2 GB, a mix of four 8 GB.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["F16", "BF16", "F32"]
ITEM_BYTES: dict[Kind, int] = {"F16": 2, "BF16": 2, "F32": 4}
_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library's own limit
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Tensor:
    """Numbers of a file. ``array`` is a view of it; BF16, which numpy lacks, as its 16 bits."""

    kind: Kind
    array: NDArray[Any]


def map_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, nothing read yet.

    Raises AdapterError when it is missing or malformed, or holds other kinds of numbers.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # checks offsets, overlaps and sizes
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"{path} can't be read: {error}.", fix="Fetch it again.") from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        kind, (first, last) = entry["dtype"], entry["data_offsets"]
        if kind not in ITEM_BYTES:
            raise AdapterError(f"{path}: {name} is {kind}; F16, BF16 or F32 is read.")
        count = (last - first) // ITEM_BYTES[kind]
        array = np.frombuffer(data, numpy_type(kind), count, 8 + length + first)
        tensors[name] = Tensor(kind, array.reshape(entry["shape"]))
    return tensors


def create_tensors(
    path: Path, entries: Mapping[str, tuple[Kind, tuple[int, ...]]]
) -> dict[str, Tensor]:
    """Make a file of zeros with these tensors and map it for writing."""
    import numpy as np

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in entries.items():
        start, end = end, end + ITEM_BYTES[kind] * int(np.prod(shape))
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    if len(text) > _LONGEST_HEADER:
        raise AdapterError(f"{path}: its header would be too long.")
    with path.open("w+b") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        file.flush()
        data = mmap.mmap(file.fileno(), 0)
    made = {}
    for name, (kind, shape) in entries.items():
        offset = 8 + len(text) + header[name]["data_offsets"][0]
        array = np.frombuffer(data, numpy_type(kind), int(np.prod(shape)), offset)
        made[name] = Tensor(kind, array.reshape(shape))
    return made


def numpy_type(kind: Kind) -> str:
    """The numpy type that holds numbers of this kind."""
    return {"F16": "<f2", "BF16": "<u2", "F32": "<f4"}[kind]


def as_f32(tensor: Tensor) -> NDArray[np.float32]:
    """The numbers as float32, which holds every kind exactly."""
    import numpy as np

    if tensor.kind == "BF16":
        return (tensor.array.astype(np.uint32) << 16).view(np.float32)
    return tensor.array.astype(np.float32, copy=False)


def put_f32(out: Tensor, values: NDArray[np.float32]) -> None:
    """Round ``values`` to nearest, ties to even, into ``out``; infinities and NaN stay so."""
    import numpy as np

    if out.kind != "BF16":
        out.array[...] = values
        return
    bits = values.view(np.uint32)
    rounded = bits + ((bits >> 16 & 1) + 0x7FFF)
    np.copyto(rounded, bits | 0x400000, where=np.isnan(values))
    np.copyto(out.array, rounded >> 16, casting="unsafe")
