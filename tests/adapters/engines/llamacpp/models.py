"""GGUF models as people make them: other number formats by tensor, layers taken out or doubled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

_LAYER = re.compile(r"blk\.(\d+)\.")
Choose = Callable[[str], GGMLQuantizationType]


def rebuilt(
    base: Path,
    out: Path,
    *,
    layers: Sequence[int] | None = None,
    types: Choose | None = None,
) -> Path:
    """``base`` with ``layers`` in that order (its own when None), tensors in the chosen types."""
    reader = GGUFReader(base)
    count = int(reader.fields["llama.block_count"].contents())
    wanted = list(range(count)) if layers is None else list(layers)
    writer = GGUFWriter(out, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = len(wanted) if key == "llama.block_count" else field.contents()
        items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, field.types[0], items)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    names = {name: name for name in tensors if not _LAYER.match(name)}
    for place, layer in enumerate(wanted):
        names |= {
            f"blk.{place}." + name.removeprefix(f"blk.{layer}."): name
            for name in tensors
            if name.startswith(f"blk.{layer}.")
        }
    for name, source in names.items():
        tensor = tensors[source]
        if types is None or tensor.data.ndim != 2:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            kind = types(name)
            weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            data = weights if kind == GGMLQuantizationType.F32 else quantize(weights, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
