"""Safetensors files, read tensor by tensor, and new ones as memory maps that are filled in place.

Composing is bound by memory: an adapter of the production model is 2 GB, a mix of four 8 GB. The
sources are read and not mapped: who copies over a mapped file ends the process that maps it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
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
    """Numbers in memory, or in a mapped file; BF16, which numpy lacks, as its 16 bits."""

    kind: Kind
    array: NDArray[Any]


class StoredFile:
    """An open file that has to stay as it was when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        self._state = self._look()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, array: NDArray[Any], offset: int) -> None:
        """Fill ``array`` from ``offset`` on. Raises AdapterError where the file has changed."""
        view = memoryview(array.data).cast("B")
        while view:
            count = os.preadv(self._file, [view], offset)
            if count == 0:
                break
            view, offset = view[count:], offset + count
        if view or self._look() != self._state:
            raise AdapterError(
                f"{self._path} was changed while it was served.", fix="It is looked at again."
            )

    def _look(self) -> tuple[int, int]:
        stat = os.fstat(self._file)
        return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a file, not read yet."""

    kind: Kind
    shape: tuple[int, ...]
    file: StoredFile
    offset: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def read(self) -> Tensor:
        """Its numbers. Raises AdapterError where the file has changed since it was opened."""
        import numpy as np

        array = np.empty(self.shape, numpy_type(self.kind))
        if array.size:
            self.file.read(array, self.offset)
        return Tensor(self.kind, array)


def open_tensors(path: Path) -> dict[str, Stored]:
    """All tensors of a file by name, nothing read yet.

    Raises AdapterError when it is missing or malformed, or holds other kinds of numbers.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # checks offsets, overlaps and sizes
            pass
        file = StoredFile(path)
        with path.open("rb") as head:
            length = int.from_bytes(head.read(8), "little")
            header = json.loads(head.read(length))
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"{path} can't be read: {error}.", fix="Fetch it again.") from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        kind = entry["dtype"]
        if kind not in ITEM_BYTES:
            raise AdapterError(f"{path}: {name} is {kind}; F16, BF16 or F32 is read.")
        offset = 8 + length + entry["data_offsets"][0]
        tensors[name] = Stored(kind, tuple(entry["shape"]), file, offset)
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
