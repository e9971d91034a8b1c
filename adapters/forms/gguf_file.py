"""The bytes of a GGUF adapter: its metadata and tensors, read without trust.

The gguf package reads a file of 96 bytes that claims an array of a trillion entries for ever; an
adapter comes from strangers, so each count is held against the bytes that are there first.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCALARS = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}
_STRING, _ARRAY = 8, 9
_F32, _F16, _BF16 = 0, 1, 30
_ITEM_BYTES = {_F32: 4, _F16: 2, _BF16: 2}
NUMBER_FORMATS = {_F32: "f32", _F16: "f16", _BF16: "bf16"}
_VERSIONS = (2, 3)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """``metadata`` holds numbers, booleans and texts; an array is None.

    ``tensors`` have numpy's order of axes, the reverse of GGUF's. BF16 comes as float32.
    """

    metadata: dict[str, Any]
    tensors: dict[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: ``offset`` counts in bytes from where all tensors start."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def read_gguf_file(path: Path) -> GgufFile:
    """Read the file whole. Raises AdapterError when it is missing, damaged or quantised."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path} can't be read: {error}.") from error
    metadata, infos, start = _read_header(data, path)
    return GgufFile(metadata, {info.name: _tensor(data, info, start, path) for info in infos})


def read_gguf_header(path: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
    """Metadata and tensors without their numbers, of any type; quick for a large file.

    Raises AdapterError when the file is damaged.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            metadata, infos, _ = _read_header(data, path)
    except (OSError, ValueError) as error:  # an empty file can't be mapped
        raise AdapterError(f"{path} can't be read: {error}.") from error
    return metadata, infos


def _read_header(
    data: bytes | mmap.mmap, path: Path
) -> tuple[dict[str, Any], list[TensorInfo], int]:
    """Metadata, tensors, and the byte at which their numbers start."""
    cursor = _Cursor(data, path)
    if cursor.take(4) != b"GGUF" or cursor.number("<I") not in _VERSIONS:
        raise cursor.error("isn't a GGUF file of version 2 or 3")
    tensor_count, entry_count = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(cursor.fitting(entry_count, 12)):
        name = cursor.text()
        value = cursor.value(cursor.number("<I"))
        if name in metadata:
            raise cursor.error(f"holds {name!r} twice")
        metadata[name] = value
    infos = [cursor.tensor_info() for _ in range(cursor.fitting(tensor_count, 24))]
    names = [info.name for info in infos]
    if len(set(names)) < len(names):
        raise cursor.error("holds a tensor twice")
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 65_536:
        raise cursor.error(f"has an alignment of {alignment!r}")
    return metadata, infos, -(-cursor.at // alignment) * alignment


class _Cursor:
    """A place in ``data`` that never leaves it."""

    def __init__(self, data: bytes | mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self.at = 0

    def error(self, what: str) -> AdapterError:
        return AdapterError(f"{self._path} {what}.", fix="Convert or fetch it again.")

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise self.error("is cut off")
        self.at += count
        return self._data[self.at - count : self.at]

    def fitting(self, count: int, least: int) -> int:
        """``count`` things of at least ``least`` bytes each, if the file has room for them."""
        if count * least > len(self._data) - self.at:
            raise self.error(f"claims {count} entries, more than it has room for")
        return count

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("<Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("holds a text that isn't UTF-8") from error

    def value(self, kind: int) -> Any:
        """A scalar or a text; arrays are passed over and give None."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise self.error(f"holds a value of the unknown type {kind}")
        item, count = self.number("<I"), self.number("<Q")
        if item == _STRING:
            for _ in range(self.fitting(count, 8)):
                self.take(self.number("<Q"))
        elif item in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[item]))
        else:
            raise self.error(f"holds an array of the unknown type {item}")
        return None

    def tensor_info(self) -> TensorInfo:
        name, axes = self.text(), self.number("<I")
        if not 1 <= axes <= 4:
            raise self.error(f"has a tensor {name!r} of {axes} axes")
        shape = tuple(self.number("<Q") for _ in range(axes))
        return TensorInfo(name, shape[::-1], self.number("<I"), self.number("<Q"))


def _tensor(data: bytes, info: TensorInfo, start: int, path: Path) -> NDArray[np.floating[Any]]:
    import numpy as np

    if info.kind not in _ITEM_BYTES:
        raise AdapterError(
            f"{path}: {info.name} is quantised (type {info.kind}); F16, BF16 or F32 is read.",
            fix="Convert the adapter with --outtype f16 or f32.",
        )
    first, size = start + info.offset, math.prod(info.shape) * _ITEM_BYTES[info.kind]
    if size == 0 or first + size > len(data):
        raise AdapterError(
            f"{path}: {info.name} has the shape {info.shape}, which the file hasn't room for.",
            fix="Convert or fetch it again.",
        )
    part = memoryview(data)[first : first + size]
    if info.kind == _BF16:
        bits = np.frombuffer(part, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(info.shape)
    return np.frombuffer(part, "<f4" if info.kind == _F32 else "<f2").reshape(info.shape)
