"""The base model that a GGUF adapter is for: its architecture, heads and weight shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.forms.folder import rank_of
from adapters.forms.gguf_file import TensorInfo, read_gguf_header
from adapters.forms.gguf_names import ARCHITECTURES
from kiki.errors import AdapterError


@dataclass(frozen=True, slots=True)
class Heads:
    """How many heads the rows of a weight are made of, as far as their order depends on it.

    ``query`` and ``key`` are those of the attention. The rest are the linear attention's, 0 for
    a model without one: key heads, value heads, and the size of a key's and a value's head.
    """

    query: int
    key: int
    linear_key: int = 0
    linear_value: int = 0
    linear_key_size: int = 0
    linear_value_size: int = 0


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What an adapter must fit: the base's architecture, heads, and weight shapes.

    ``weights`` maps a GGUF tensor's name to its shape, outputs before inputs, experts first:
    (outputs, inputs) or (experts, outputs, inputs).
    """

    architecture: str
    heads: Heads
    layers: int
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_base_shape(base_gguf: Path) -> BaseShape:
    """The shape of a base model, from its GGUF metadata.

    Raises AdapterError when the file is missing or unreadable, or of an architecture whose
    adapters aren't converted.
    """
    metadata, tensors = read_base_header(base_gguf)
    shape = read_metadata(metadata, str(base_gguf))
    weights = {
        tensor.name: (1, *tensor.shape) if len(tensor.shape) == 1 else tensor.shape
        for tensor in tensors
    }
    return BaseShape(shape.architecture, shape.heads, shape.layers, weights)


def read_base_header(base_gguf: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
    """Metadata and tensors of a base model of any architecture.

    Raises AdapterError when the file is missing or unreadable.
    """
    if not base_gguf.is_file():
        raise AdapterError(f"The base model {base_gguf} is missing.", fix="kiki models pull")
    try:
        return read_gguf_header(base_gguf)
    except AdapterError as error:
        raise AdapterError(f"{base_gguf} isn't a readable GGUF file: {error.message}") from error


def read_metadata(metadata: Mapping[str, Any], where: str) -> BaseShape:
    """Architecture and heads from a GGUF file's metadata; the weights stay empty."""
    architecture = str(metadata.get("general.architecture", "unknown"))
    if architecture not in ARCHITECTURES:
        raise AdapterError(
            f"{where} is a {architecture} model; {', '.join(ARCHITECTURES)} are converted."
        )

    def count(key: str, fallback: int | None = None) -> int:
        name = f"{architecture}.{key}"
        value = metadata.get(name, fallback)
        if value is None:
            raise AdapterError(f"{where} has no {name}.", fix="Give the base model's own file.")
        return 0 if value == 0 else rank_of(value, f"{where}: {name}")

    query = count("attention.head_count")
    keys = count("attention.head_count_kv", query)
    layers = count("block_count", 0)
    if not ARCHITECTURES[architecture].linear_attention:
        return BaseShape(architecture, Heads(query, keys), layers)
    values, inner = count("ssm.time_step_rank"), count("ssm.inner_size")
    if values == 0 or inner % values:
        raise AdapterError(f"{where}: {inner} rows aren't made of {values} heads.")
    heads = Heads(query, keys, count("ssm.group_count"), values, count("ssm.state_size"),
                  inner // values)  # fmt: skip
    return BaseShape(architecture, heads, layers)
