"""The form that llama.cpp loads: one GGUF file, for one architecture.

A weight's halves are ``blk.N.NAME.weight.lora_a`` (rank, inputs) and ``.lora_b`` (outputs, rank),
with the experts in front where there are any, in llama.cpp's order of rows and columns. The scale
is the file's one alpha over each weight's own rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.forms.base import BaseShape, Heads, read_metadata
from adapters.forms.experts import fused_layer, split_gate_up
from adapters.forms.folder import positive
from adapters.forms.gguf_file import GgufFile, read_gguf_file, read_gguf_header
from adapters.forms.gguf_names import (
    ARCHITECTURES,
    FUSED,
    FUSED_KIND,
    GATE,
    UP,
    module_of,
    target_of,
)
from adapters.forms.halves import Named, check_weight, make_lora, pair_up, with_scale
from adapters.forms.rows import from_llamacpp, has_own_order, to_llamacpp
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STORED = re.compile(r"blk\.(\d+)\.(.+)\.weight")
_HALVES = {".lora_a": "A", ".lora_b": "B"}


def read_gguf(path: Path, base: BaseShape | None = None) -> Lora:
    """The adapter in the file ``path``.

    The order of some rows depends on the base's heads. ``write_gguf`` notes them in the file;
    llama.cpp's own converter doesn't, and then ``base`` is needed.
    Raises AdapterError for a damaged file, one that is no LoRA, or when ``base`` is missing.
    """
    where = str(path)
    file = _open(path)
    alpha = positive(file.metadata.get("adapter.lora.alpha"), f"{where}: adapter.lora.alpha")
    architecture = str(file.metadata.get("general.architecture"))
    if architecture not in ARCHITECTURES:
        raise AdapterError(f"{where} is for {architecture}; {', '.join(ARCHITECTURES)} are read.")
    pairs = pair_up(_named(file.tensors, architecture, where), where)
    stored = [LoraWeight(pair.module, pair.a, pair.b) for pair in pairs]
    for weight in stored:
        check_weight(weight, None, where)
    shape = _shape_for(stored, file.metadata, architecture, base, where)
    rank = min(weight.rank for weight in stored)
    weights: dict[str, LoraWeight] = {}
    for weight in stored:
        level = with_scale(from_llamacpp(weight, shape), rank / weight.rank)
        parts = split_gate_up(level) if weight.kind == FUSED_KIND else [level]
        weights |= {part.module: part for part in parts}
    name = str(file.metadata.get("general.name") or path.stem)
    exact = alpha if all(weight.rank == rank for weight in weights.values()) else None
    base_name = str(file.metadata.get("general.base_model.0.name") or "")
    return make_lora(name, base_name, alpha / rank, exact, weights)


def read_stored(path: Path) -> Lora:
    """The adapter in the file ``path`` as it is stored, for any architecture and without its base.

    Rows stand in llama.cpp's order, so that this is good for judging an adapter, not for using it.
    A module of an architecture that isn't known here keeps its GGUF name.
    Raises AdapterError for a damaged file, or one that is no LoRA.
    """
    where = str(path)
    file = _open(path)
    alpha = positive(file.metadata.get("adapter.lora.alpha"), f"{where}: adapter.lora.alpha")
    architecture = str(file.metadata.get("general.architecture"))
    pairs = pair_up(_named(file.tensors, architecture, where), where)
    weights = {pair.module: LoraWeight(pair.module, pair.a, pair.b) for pair in pairs}
    for weight in weights.values():
        check_weight(weight, None, where)
    rank = min((weight.rank for weight in weights.values()), default=1)
    base_name = str(file.metadata.get("general.base_model.0.name") or "")
    return Lora(path.stem, base_name, rank, alpha, weights)


def unsupported(lora: Lora, base: BaseShape) -> tuple[str, ...]:
    """The kinds of modules that ``lora`` adapts and llama.cpp has no name for in ``base``."""
    kinds = {
        weight.kind
        for weight in lora.weights.values()
        if target_of(weight.module, base.architecture) is None
    }
    return tuple(sorted(kinds))


def write_gguf(lora: Lora, base: BaseShape, path: Path) -> None:
    """Write ``lora``, all of one rank, as an adapter for ``base``.

    Raises AdapterError for a module without a place in ``base``, a shape that doesn't fit, or a
    number that isn't finite.
    """
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, base.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", lora.alpha)
    writer.add_name(lora.name)
    if lora.base:
        writer.add_string("general.base_model.0.name", lora.base)
    _add_heads(writer, base.heads, linear=ARCHITECTURES[base.architecture].linear_attention)
    for target, weight in sorted(_targets(lora, base).items()):
        _check_fit(target, weight, base, lora.name)
        stored = to_llamacpp(weight, base)
        for half, array in (("lora_a", stored.a), ("lora_b", stored.b)):
            if not np.isfinite(array).all():
                short = {"float16": "f16", "float32": "f32"}[array.dtype.name]
                raise AdapterError(f"{lora.name}: {target}.{half} isn't finite in {short}.")
            writer.add_tensor(f"{target}.{half}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def is_gguf_adapter(path: Path) -> bool:
    """Whether the file is a GGUF adapter, by its header."""
    try:
        metadata, _ = read_gguf_header(path)
    except AdapterError:
        return False
    return metadata.get("general.type") == "adapter"


def _open(path: Path) -> GgufFile:
    # The header first: a whole model is a GGUF file too, and its tensors may fill the memory.
    metadata, _ = read_gguf_header(path)
    for key, expected in (("general.type", "adapter"), ("adapter.type", "lora")):
        if metadata.get(key) != expected:
            raise AdapterError(f"{path} isn't a LoRA: its {key} isn't {expected!r}.")
    return read_gguf_file(path)


def _named(
    tensors: Mapping[str, NDArray[np.floating[Any]]], architecture: str, where: str
) -> list[Named]:
    found = []
    for name, array in tensors.items():
        half = _HALVES.get(name[-7:])
        if architecture in ARCHITECTURES:
            module = module_of(name[:-7], architecture)
        else:
            match = _STORED.fullmatch(name[:-7])
            module = f"layers.{match[1]}.{match[2]}" if match else None
        if half is None or module is None:
            raise AdapterError(f"{where}: unknown weight {name!r}.")
        found.append(Named(name, module, "A" if half == "A" else "B", array))
    return found


def _shape_for(
    weights: list[LoraWeight],
    metadata: Mapping[str, Any],
    architecture: str,
    base: BaseShape | None,
    where: str,
) -> BaseShape:
    """What the order of the rows depends on: from ``base``, else from the file itself."""
    if base is not None:
        if base.architecture != architecture:
            raise AdapterError(f"{where} is for {architecture}, the base is {base.architecture}.")
        return base
    if not any(has_own_order(weight.kind, architecture) for weight in weights):
        return BaseShape(architecture, Heads(1, 1), 0)
    if f"{architecture}.attention.head_count" not in metadata:
        raise AdapterError(
            f"{where} doesn't say how many heads its base has, and the order of rows depends "
            "on it.",
            fix="Give the base model's GGUF file too (--base).",
        )
    return read_metadata(metadata, where)


def _targets(lora: Lora, base: BaseShape) -> dict[str, LoraWeight]:
    """GGUF names to updates. Gate and up are fused where the base has them so."""
    targets: dict[str, LoraWeight] = {}
    for weight in lora.weights.values():
        target = target_of(weight.module, base.architecture)
        if target is None:
            raise AdapterError(f"{lora.name}: {weight.module} has no place in {base.architecture}.")
        fused = f"blk.{weight.layer}.{FUSED}.weight"
        if weight.kind in (GATE, UP) and target not in base.weights and fused in base.weights:
            if fused not in targets:
                made = fused_layer(lora.weights, weight.layer)
                assert made is not None  # this layer has at least one of both
                # llama.cpp divides alpha by the weight's own rank, which fusing has doubled.
                targets[fused] = with_scale(made, made.rank / weight.rank)
        else:
            targets[target] = weight
    return targets


def _check_fit(target: str, weight: LoraWeight, base: BaseShape, name: str) -> None:
    if target not in base.weights:
        raise AdapterError(
            f"{name} adapts {target}, which the base doesn't have.",
            fix="It was trained for another base model.",
        )
    experts = () if weight.experts is None else (weight.experts,)
    adapted = (*experts, weight.b.shape[-2], weight.a.shape[-1])
    if adapted != base.weights[target]:
        found, there = (" x ".join(map(str, size)) for size in (adapted, base.weights[target]))
        raise AdapterError(
            f"{name}: {target} adapts a weight of {found}; the base's is {there}.",
            fix="It was trained for another base model.",
        )


def _add_heads(writer: Any, heads: Heads, *, linear: bool) -> None:
    """Note what ``read_gguf`` needs to undo the order of rows; llama.cpp passes over it."""
    writer.add_head_count(heads.query)
    writer.add_head_count_kv(heads.key)
    if linear:
        writer.add_ssm_group_count(heads.linear_key)
        writer.add_ssm_time_step_rank(heads.linear_value)
        writer.add_ssm_state_size(heads.linear_key_size)
        writer.add_ssm_inner_size(heads.linear_value * heads.linear_value_size)
