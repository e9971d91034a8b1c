"""A weighted mix of adapters as one adapter: exact, because a sum of updates is one update.

sum(w_i s_i B_i A_i) = [w_1 s_1 B_1 | w_2 s_2 B_2 | ...] [A_1; A_2; ...]: the A are stacked on
their rank axis, the B joined on theirs. The rank is the sum of the ranks, the scale is 1. (PEFT
calls this ``combination_type="cat"``.)

It works on PEFT's files and not on ``adapters.lora.Lora``: the mix is written in the same layout,
so each number is read once and put into its place in a memory map. ``lora_A`` is (experts * rank,
inputs) and ``lora_B`` (outputs, rank * experts), with one expert in a dense module; seen as
(experts, rank, inputs) and (outputs, rank, experts), the rank is the middle axis of both.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.engines.vllm.tensors import (
    ITEM_BYTES,
    Kind,
    Stored,
    Tensor,
    as_f32,
    create_tensors,
    open_tensors,
    put_f32,
)
from adapters.forms.folder import CONFIG_FILE, read_config
from adapters.forms.peft import WEIGHTS_FILE
from adapters.forms.peft_config import Scales, read_scales
from kiki.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_BLOCK = 65_536  # numbers
_PREFIX = re.compile(r"^(?:language_model\.model|model\.language_model|model)\.(?=layers\.)")


@dataclass(frozen=True, slots=True)
class Source:
    """A PEFT folder, opened. ``tensors`` are keyed by (module, "A" or "B").

    ``native`` says that the folder's own names are those of the server's modules.
    """

    folder: Path
    config: Mapping[str, Any]
    scales: Scales
    tensors: Mapping[tuple[str, str], Stored]
    rank: int
    native: bool

    @classmethod
    def open(cls, folder: Path, prefix: str) -> Source:
        """Open the adapter. ``prefix`` is what the server's modules begin with (``model.``).

        Raises AdapterError unless it is a plain LoRA whose shapes fit its config.
        """
        config = read_config(folder)
        scales = read_scales(config, folder / CONFIG_FILE)
        tensors, native = {}, True
        for name, tensor in open_tensors(folder / WEIGHTS_FILE).items():
            match = _NAME.fullmatch(name)
            if match is None or len(tensor.shape) != 2:
                raise AdapterError(f"{folder}: {name!r} isn't half of a LoRA.")
            module = _PREFIX.sub(prefix, match[1])
            native = native and module == match[1]
            tensors[module, match[2]] = tensor
        if not tensors:
            raise AdapterError(f"{folder} holds no weights.")
        rank = max([scales.rank, *scales.ranks.values()])
        source = cls(folder, config, scales, tensors, rank, native)
        source._check()
        return source

    def bytes_as(self, kind: Kind | None) -> int:
        """What its numbers take, written as ``kind``; as they are for None."""
        return sum(
            tensor.size * ITEM_BYTES[kind or tensor.kind] for tensor in self.tensors.values()
        )

    def shapes(self) -> Iterator[tuple[str, int, int]]:
        """Each adapted module with its outputs and inputs."""
        for module, half in self.tensors:
            if half == "A":
                outputs = self.tensors[module, "B"].shape[0]
                yield module, outputs, self.tensors[module, "A"].shape[1]

    def _check(self) -> None:
        for module, half in self.tensors:
            other = self.tensors.get((module, "A" if half == "B" else "B"))
            if other is None:
                raise AdapterError(f"{self.folder}: {module} has only one of lora_A and lora_B.")
            a, b = self.tensors[module, "A"].shape, self.tensors[module, "B"].shape
            if a[0] != b[1] or a[0] % self.rank_of(module):
                raise AdapterError(
                    f"{self.folder}: {module} has shapes A {a} and B {b}, "
                    f"but the config says rank {self.rank_of(module)}."
                )

    def rank_of(self, module: str) -> int:
        return self.scales.rank_of(_parameter(module))

    def scale_of(self, module: str) -> float:
        return self.scales.default * self.scales.factor(_parameter(module))

    def half(self, module: str, half: str) -> Tensor:
        """Half a module with its rank as the middle axis, read now."""
        tensor = self.tensors[module, half].read()
        return Tensor(tensor.kind, _ranked(tensor.array, half, self.rank_of(module)))


def compose(
    parts: Sequence[tuple[Source, float]],
    out: Path,
    *,
    kind: Kind | None = None,
    threads: int = min(8, os.cpu_count() or 1),
) -> int:
    """Write what ``parts`` do together, each with its weight, as one adapter; returns its bytes.

    A module that a part leaves alone gets zeros in that part's place. Numbers are written as
    ``kind``, which is best the server's own; None is the parts' kind, or F32 where they differ.
    B times its weight is computed in f32 and rounded once: at most half a unit in the last place,
    as when the trained B was rounded to that kind (relative 2^-9 in bf16, 2^-12 in f16), and
    nothing where the factor is a power of two. Raises AdapterError where the parts don't fit
    each other.
    """
    rank = sum(source.rank for source, _ in parts)
    entries = _entries([source for source, _ in parts], rank, kind, out.name)
    out.mkdir(parents=True)
    names = {key: f"base_model.model.{key[0]}.lora_{key[1]}.weight" for key in entries}
    made = create_tensors(
        out / WEIGHTS_FILE, {names[key]: (kind, shape) for key, (kind, shape) in entries.items()}
    )
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the lock while it copies
        jobs = [pool.submit(_fill, made[name], key, parts, rank) for key, name in names.items()]
        for job in jobs:
            job.result()
    _write_config([source.config for source, _ in parts], rank, out / CONFIG_FILE)
    return (out / WEIGHTS_FILE).stat().st_size


def _fill(
    out: Tensor, key: tuple[str, str], parts: Sequence[tuple[Source, float]], rank: int
) -> None:
    """Put the parts beside each other, then weigh them all at once: long rows compute fast."""
    import numpy as np

    module, half = key
    whole = _ranked(out.array, half, rank)
    factors = np.ones(rank, np.float32)
    start = 0
    for source, weight in parts:
        if key in source.tensors:
            given = source.half(module, half)
            end = start + given.array.shape[1]
            factor = weight * source.scale_of(module) if half == "B" else 1.0
            if given.kind == out.kind:
                whole[:, start:end] = given.array
                factors[start:end] = factor
            else:
                place = Tensor(out.kind, whole[:, start:end])
                put_f32(place, as_f32(given) * np.float32(factor))
        start += source.rank
    if (factors != 1.0).any():
        _weigh(out, np.repeat(factors, whole.shape[2]))


def _weigh(out: Tensor, factors: NDArray[np.float32]) -> None:
    """Multiply the columns by ``factors``, some rows at a time: what fits the cache is fast."""
    rows = max(1, _BLOCK // factors.size)
    for start in range(0, out.array.shape[0], rows):
        block = Tensor(out.kind, out.array[start : start + rows])
        put_f32(block, as_f32(block) * factors)


def _entries(
    sources: Sequence[Source], rank: int, kind: Kind | None, name: str
) -> dict[tuple[str, str], tuple[Kind, tuple[int, int]]]:
    """The kind and shape of each half that any of the parts has."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for source in sources:
        for (module, half), tensor in source.tensors.items():
            rows, columns = tensor.shape
            experts = (rows if half == "A" else columns) // source.rank_of(module)
            shape = (experts * rank, columns) if half == "A" else (rows, experts * rank)
            if found.setdefault((module, half), shape) != shape:
                raise AdapterError(
                    f"{name}: its adapters disagree about the shape of {module}.",
                    fix="They were trained for different base models; take one of them away.",
                )
    kinds = {tensor.kind for source in sources for tensor in source.tensors.values()}
    chosen: Kind = kind or (kinds.pop() if len(kinds) == 1 else "F32")
    return {key: (chosen, shape) for key, shape in sorted(found.items())}


def _write_config(configs: Sequence[Mapping[str, Any]], rank: int, path: Path) -> None:
    targets = {str(name) for config in configs for name in _listed(config.get("target_modules"))}
    parameters = {str(n) for config in configs for n in _listed(config.get("target_parameters"))}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": configs[0].get("base_model_name_or_path"),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(targets),
        "target_parameters": sorted(parameters) or None,
        "inference_mode": True,
    }
    path.write_text(json.dumps(config, indent=2), "utf-8")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _ranked(array: NDArray[Any], half: str, rank: int) -> NDArray[Any]:
    rows, columns = array.shape
    if half == "A":
        return array.reshape(rows // rank, rank, columns)
    return array.reshape(rows, rank, columns // rank)


def _parameter(module: str) -> str:
    """The path that PEFT's patterns name: a wrapped parameter is named by itself."""
    if module.endswith(".experts.base_layer"):
        return module.removesuffix("base_layer") + "gate_up_proj"
    return f"{module}.down_proj" if module.endswith(".experts") else module
