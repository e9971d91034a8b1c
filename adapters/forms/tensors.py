"""Safetensors files, read without trust and written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library's own limit
_ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
_AGAIN = "Fetch or train it again."


def read_safetensors(path: Path) -> dict[str, NDArray[np.floating[Any]]]:
    """All tensors of a safetensors file, by name. BF16 comes as float32, which holds it exactly.

    The safetensors library itself checks the header (offsets, overlaps, sizes); it can't give
    BF16 to numpy and takes the last of two tensors of one name, so those parts are done here.
    Raises AdapterError when the file is missing, cut off or malformed, or holds anything but F16,
    BF16 and F32. What is allocated never exceeds twice the file's size.
    """
    header, start = read_header(path)
    tensors = {}
    try:
        with path.open("rb") as file:
            for name, entry in header.items():
                tensors[name] = _read_tensor(file, name, entry, start, path)
    except OSError as error:
        raise AdapterError(f"{path} can't be read: {error}.") from error
    return tensors


def write_safetensors(
    tensors: Mapping[str, NDArray[Any]], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write ``tensors`` in their own number formats, sorted by name."""
    import numpy as np
    from safetensors.numpy import save_file

    # save_file writes the memory behind a view, whatever its strides.
    plain = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    save_file(plain, path, metadata=metadata)


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The checked header without its metadata, and the byte at which the tensors start."""
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8 or length > size - 8:
                raise AdapterError(f"{path} is cut off in its header.", fix=_AGAIN)
            if length > _LONGEST_HEADER:
                raise AdapterError(f"{path} isn't a valid safetensors file: its header is huge.")
            header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
    except FileNotFoundError as error:
        raise AdapterError(f"{path} is missing.") from error
    except OSError as error:
        raise AdapterError(f"{path} can't be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} isn't a valid safetensors file: {error}.") from error
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        if "incomplete metadata" in str(error):
            raise AdapterError(f"{path} is cut off, or too long.", fix=_AGAIN) from error
        raise AdapterError(f"{path} isn't a valid safetensors file: {error}.") from error
    header.pop("__metadata__", None)
    return header, 8 + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it holds {twice!r} twice")
    return found


def _read_tensor(
    file: Any, name: str, entry: dict[str, Any], start: int, path: Path
) -> NDArray[np.floating[Any]]:
    import numpy as np

    kind, shape = entry["dtype"], entry["shape"]
    first, last = entry["data_offsets"]
    if kind not in _ITEM_BYTES:
        raise AdapterError(f"{path}: {name} is {kind}; F16, BF16 or F32 is read.")
    file.seek(start + first)
    data = file.read(last - first)
    if len(data) != last - first:  # it shrank since its header was read
        raise AdapterError(f"{path} is cut off in {name}.", fix=_AGAIN)
    try:
        if kind == "BF16":
            bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(shape)
        return np.frombuffer(data, "<f2" if kind == "F16" else "<f4").reshape(shape)
    except ValueError as error:
        raise AdapterError(f"{path}: {name} can't have the shape {shape}.") from error
