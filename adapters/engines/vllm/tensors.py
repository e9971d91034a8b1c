"""Safetensors files of numbers: where each tensor lies, read in pieces, written as a stream.

Nothing is mapped: a mapped file that its owner overwrites changes under the reader, and one that
is cut short ends the process (SIGBUS). Pieces of a few megabytes stay in the processor's cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from adapters.forms.tensors import read_header
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["F16", "BF16", "F32"]
ITEM_BYTES: dict[Kind, int] = {"F16": 2, "BF16": 2, "F32": 4}
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file; ``start`` is its first byte there."""

    kind: Kind
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Differs once a file was written to, cut short or replaced (times in nanoseconds)."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, file: Path | int) -> Stamp:
        """Of a path or an open file. Raises OSError."""
        found = file.stat() if isinstance(file, Path) else os.fstat(file)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def stored_tensors(path: Path) -> dict[str, Stored]:
    """All tensors of a file by name, nothing of them read.

    Raises AdapterError when it is missing or malformed, or holds other kinds of numbers.
    """
    header, start = read_header(path)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in ITEM_BYTES:
            raise AdapterError(f"{path}: {name} is {entry['dtype']}; F16, BF16 or F32 is read.")
        first = start + entry["data_offsets"][0]
        tensors[name] = Stored(cast(Kind, entry["dtype"]), tuple(entry["shape"]), first)
    return tensors


class TensorFile:
    """A file that is read from, by any number of threads, while it bears ``stamp``.

    As a context it raises AdapterError at its start and at its end where the file is another one.
    """

    def __init__(self, path: Path, stamp: Stamp) -> None:
        self._path = path
        self._stamp = stamp
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise AdapterError(f"{self._path} can't be read: {error}.") from error
        try:
            self._check()
        except AdapterError:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._check()
        finally:
            os.close(self._file)

    def read_into(self, left: memoryview, start: int) -> None:
        """Fill it with the bytes from ``start``. Raises AdapterError."""
        try:
            while left:
                count = os.preadv(self._file, [left], start)
                if not count:
                    raise changed(self._path)
                left, start = left[count:], start + count
        except OSError as error:
            raise AdapterError(f"{self._path} can't be read: {error}.") from error

    def _check(self) -> None:
        if Stamp.of(self._file) != self._stamp:
            raise changed(self._path)


def changed(path: Path) -> AdapterError:
    return AdapterError(
        f"{path} has changed since its adapter was found fit.", fix="It is looked at again."
    )


def header_of(entries: Mapping[str, tuple[Kind, Sequence[int]]]) -> bytes:
    """What stands before the numbers of a file with these tensors, one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in entries.items():
        start, end = end, end + ITEM_BYTES[kind] * prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def numpy_type(kind: Kind) -> str:
    """The numpy type that holds numbers of this kind; BF16, which numpy lacks, as its 16 bits."""
    return {"F16": "<f2", "BF16": "<u2", "F32": "<f4"}[kind]


def as_f32(kind: Kind, array: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers as float32, which holds every kind exactly."""
    import numpy as np

    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def put_f32(kind: Kind, out: NDArray[Any], values: NDArray[np.float32]) -> None:
    """Round ``values`` to nearest, ties to even, into ``out``; infinities and NaN stay so."""
    import numpy as np

    if kind != "BF16":
        out[...] = values
        return
    bits = values.view(np.uint32)
    rounded = bits + ((bits >> 16 & 1) + 0x7FFF)
    np.copyto(rounded, bits | 0x400000, where=np.isnan(values))
    np.copyto(out, rounded >> 16, casting="unsafe")
