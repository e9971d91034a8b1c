"""PEFT LoRA weights (safetensors) to a GGUF LoRA that llama.cpp loads. Needs numpy and gguf only.

llama.cpp stores the rows of a llama model's q and k projections in another order than
transformers (its rotary embedding pairs neighbours, transformers' pairs halves), so the rows of
their lora_B are permuted the same way. Without it the adapter loads, and answers wrongly.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

# PEFT's module name, as the base's GGUF tensor is called.
_MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WEIGHT_NAME = re.compile(
    r"base_model\.model\.model\.layers\.(\d+)\.([a-z_]+\.[a-z_]+)\.lora_([AB])(?:\.default)?\.weight"
)
_DTYPES = {"F16": "<f2", "F32": "<f4"}
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What an adapter must fit: the base's architecture, heads, and weight shapes.

    ``weights`` maps a GGUF tensor's name to (rows, columns), that is (outputs, inputs).
    """

    architecture: str
    heads: int
    kv_heads: int
    weights: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One adapted weight: ``a`` is (rank, inputs), ``b`` is (outputs, rank)."""

    target: str
    a: NDArray[np.floating[Any]]
    b: NDArray[np.floating[Any]]


def convert_peft_to_gguf(adapter_dir: Path, base_gguf: Path, out: Path) -> None:
    """Write the PEFT adapter in ``adapter_dir`` as a GGUF LoRA for ``base_gguf`` to ``out``.

    The file appears whole or not at all. Raises AdapterError when the adapter's files are missing
    or damaged, when a weight has no place in the base, or when a shape doesn't fit.
    """
    config = read_peft_config(adapter_dir)
    tensors = read_safetensors(adapter_dir / WEIGHTS_FILE)
    base = read_base_shape(base_gguf)
    pairs = _pair_weights(tensors, config, base, adapter_dir)
    _write_gguf(pairs, base, float(config["lora_alpha"]), adapter_dir.name, out)


def permute_rows(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of a q or k projection, (heads * dim, n), in llama.cpp's order.

    The same reordering as ``LlamaModel.permute`` of llama.cpp's convert_hf_to_gguf.py: within a
    head, row j of the first half is followed by row j of the second.
    """
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def unpermute_rows(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """The inverse of ``permute_rows``."""
    rows, columns = weight.shape
    neighbours = weight.reshape(heads, rows // heads // 2, 2, columns)
    return neighbours.swapaxes(1, 2).reshape(rows, columns)


def read_peft_config(adapter_dir: Path) -> dict[str, Any]:
    """The adapter's ``adapter_config.json``. Raises AdapterError unless it is a plain LoRA's."""
    path = adapter_dir / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(f"{path} is missing.", fix="A PEFT adapter needs it.") from error
    except ValueError as error:
        raise AdapterError(f"{path} isn't JSON: {error}.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterError(f"{path} doesn't describe a LoRA (peft_type must be LORA).")
    for name in ("r", "lora_alpha"):
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise AdapterError(f"{path}: {name} is {value!r}; it must be a number above 0.")
    # Each of these changes what the weights mean, and a GGUF LoRA has no word for it.
    for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(name):
            raise AdapterError(f"{path}: {name} can't be converted to GGUF.")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{path}: bias {config['bias']!r} can't be converted to GGUF.")
    return config


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file (F16 or F32), by name.

    Raises AdapterError when the file is missing, truncated or malformed.
    """
    import numpy as np

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise AdapterError(f"{path} is missing.") from error
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _LONGEST_HEADER):
        raise AdapterError(f"{path} is cut off in its header.", fix="Fetch or train it again.")
    try:
        header = json.loads(data[8 : 8 + length])
        body = memoryview(data)[8 + length :]
        tensors: dict[str, NDArray[Any]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            if not 0 <= start <= end <= len(body):
                raise AdapterError(
                    f"{path} is cut off: {name} ends at byte {end} of {len(body)}.",
                    fix="Fetch or train it again.",
                )
            if entry["dtype"] not in _DTYPES:
                raise AdapterError(f"{path}: {name} is {entry['dtype']}; F16 or F32 is read.")
            array = np.frombuffer(body[start:end], dtype=_DTYPES[entry["dtype"]])
            tensors[name] = array.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise AdapterError(f"{path} isn't a valid safetensors file: {error}.") from error
    return tensors


def read_base_shape(base_gguf: Path) -> BaseShape:
    """Architecture, heads and weight shapes from the base's GGUF metadata.

    Raises AdapterError when the file is missing, unreadable or not a llama model.
    """
    from gguf import GGUFReader

    if not base_gguf.is_file():
        raise AdapterError(f"The base model {base_gguf} is missing.", fix="kiki models pull")
    try:
        reader = GGUFReader(base_gguf)
    except (ValueError, IndexError, KeyError) as error:
        raise AdapterError(f"{base_gguf} isn't a readable GGUF file: {error}.") from error

    def value(key: str) -> Any:
        field = reader.get_field(key)
        if field is None:
            raise AdapterError(f"{base_gguf} has no {key}.", fix="It must be a llama model.")
        return field.contents()

    architecture = str(value("general.architecture"))
    if architecture != "llama":
        raise AdapterError(f"{base_gguf} is a {architecture} model; llama is converted.")
    weights = {
        tensor.name: (int(tensor.shape[1]), int(tensor.shape[0]))  # GGUF puts the inputs first
        for tensor in reader.tensors
        if len(tensor.shape) == 2
    }
    return BaseShape(
        architecture=architecture,
        heads=int(value("llama.attention.head_count")),
        kv_heads=int(value("llama.attention.head_count_kv")),
        weights=weights,
    )


def _pair_weights(
    tensors: dict[str, NDArray[Any]], config: dict[str, Any], base: BaseShape, adapter_dir: Path
) -> list[LoraPair]:
    halves: dict[str, dict[str, NDArray[Any]]] = {}
    for name, tensor in tensors.items():
        match = _WEIGHT_NAME.fullmatch(name)
        if match is None or match[2] not in _MODULES:
            raise AdapterError(f"{adapter_dir}: unknown weight {name!r}.")
        target = f"blk.{match[1]}.{_MODULES[match[2]]}.weight"
        halves.setdefault(target, {})[match[3]] = tensor
    if not halves:
        raise AdapterError(f"{adapter_dir} holds no weights.")
    pairs = []
    for target, half in halves.items():
        if len(half) != 2:
            raise AdapterError(f"{adapter_dir}: {target} has only one of lora_A and lora_B.")
        _check_shapes(target, half["A"], half["B"], int(config["r"]), base, adapter_dir)
        b = half["B"]
        if target.endswith("attn_q.weight"):
            b = permute_rows(b, base.heads)
        elif target.endswith("attn_k.weight"):
            b = permute_rows(b, base.kv_heads)
        pairs.append(LoraPair(target, half["A"], b))
    return pairs


def _check_shapes(
    target: str,
    a: NDArray[Any],
    b: NDArray[Any],
    rank: int,
    base: BaseShape,
    adapter_dir: Path,
) -> None:
    if target not in base.weights:
        raise AdapterError(
            f"{adapter_dir} adapts {target}, which the base doesn't have.",
            fix="It was trained for another base model.",
        )
    rows, columns = base.weights[target]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise AdapterError(
            f"{adapter_dir}: {target} has shapes A {a.shape} and B {b.shape}, "
            f"but the config says rank {rank}."
        )
    if (b.shape[0], a.shape[1]) != (rows, columns):
        raise AdapterError(
            f"{adapter_dir}: {target} adapts a weight of {b.shape[0]} x {a.shape[1]}; "
            f"the base's is {rows} x {columns}.",
            fix="It was trained for another base model.",
        )


def _write_gguf(pairs: list[LoraPair], base: BaseShape, alpha: float, name: str, out: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter

    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    os.close(handle)
    try:
        writer = GGUFWriter(temporary, base.architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        writer.add_name(name)
        for pair in sorted(pairs, key=lambda pair: pair.target):
            for suffix, weight in (("lora_a", pair.a), ("lora_b", pair.b)):
                half = np.ascontiguousarray(weight, dtype=np.float16)
                if not np.isfinite(half).all():
                    raise AdapterError(f"{name}: {pair.target}.{suffix} isn't finite in f16.")
                writer.add_tensor(f"{pair.target}.{suffix}", half)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        Path(temporary).chmod(0o644)  # mkstemp's own mode shuts out every other user
        Path(temporary).replace(out)
    finally:
        Path(temporary).unlink(missing_ok=True)
