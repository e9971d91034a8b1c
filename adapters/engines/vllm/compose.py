"""A weighted mix of adapters as one adapter: exact, because a sum of updates is one update.

sum(w_i s_i B_i A_i) = [w_1 s_1 B_1 | w_2 s_2 B_2 | ...] [A_1; A_2; ...]: the A are stacked on
their rank axis, the B joined on theirs. The rank is the sum of the ranks, the scale is 1. (PEFT
calls this ``combination_type="cat"``.)

It works on PEFT's files and not on ``adapters.lora.Lora``: the mix is written in the same layout,
by pieces that stay in the processor's cache. ``lora_A`` is (experts * rank, inputs) and ``lora_B``
(outputs, rank * experts), with one expert in a dense module; seen as (experts, rank, inputs) and
(outputs, rank, experts), the rank is the middle axis of both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.engines.vllm.sources import Half, Key, Shape, Source
from adapters.engines.vllm.stream import Stream
from adapters.engines.vllm.tensors import (
    ITEM_BYTES,
    Kind,
    TensorFile,
    as_f32,
    header_of,
    numpy_type,
    put_f32,
)
from adapters.forms.folder import CONFIG_FILE
from adapters.forms.peft import WEIGHTS_FILE
from kiki.errors import AdapterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1 << 20  # bytes; read, weighed and written together
_THREAD_BYTES = 64 << 20  # a thread more for each of these: of less it costs more than it saves

# A source's rank, and its halves with their shapes.
Layout = tuple[int, tuple[tuple[Key, Shape], ...]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A mix's file: what stands before the numbers, and the halves in their order."""

    kind: Kind
    header: bytes
    shapes: Mapping[Key, Shape]

    def bytes_of(self, key: Key) -> int:
        return ITEM_BYTES[self.kind] * prod(self.shapes[key])


@dataclass(frozen=True, slots=True)
class Part:
    """A source in a mix: its file, its weight, and where its ranks begin in the mix's."""

    source: Source
    file: TensorFile
    weight: float
    start: int


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
    each other, or one's files aren't those that were opened.
    """
    sources = [source for source, _ in parts]
    rank = sum(source.rank for source in sources)
    plan = _plan(tuple(map(_layout, sources)), kind or _common_kind(sources))
    out.mkdir(parents=True)
    with ExitStack() as stack:
        opened, start = [], 0
        for source, weight in parts:
            source.check()
            file = stack.enter_context(TensorFile(*source.weights))
            opened.append(Part(source, file, weight, start))
            start += source.rank
        size = _write(plan, opened, out / WEIGHTS_FILE, threads)
    _write_config([source.config for source in sources], rank, out / CONFIG_FILE)
    return size


def _write(plan: Plan, parts: Sequence[Part], path: Path, threads: int) -> int:
    sizes = {key: plan.bytes_of(key) for key in plan.shapes}
    total = sum(sizes.values())
    threads = max(1, min(threads, total // _THREAD_BYTES))
    with path.open("wb") as file:
        file.write(plan.header)
        file.flush()
        sections: list[list[Key]] = [[] for _ in range(threads)]
        starts = [0] * threads
        before = 0
        for key, size in sizes.items():
            number = min(before * threads // total, threads - 1)
            if not sections[number]:
                starts[number] = len(plan.header) + before
            sections[number].append(key)
            before += size
        if threads == 1:
            _write_section(plan, parts, sections[0], file.fileno(), starts[0])
        else:
            with ThreadPoolExecutor(threads) as pool:  # numpy and reading let go of the lock
                for job in [
                    pool.submit(_write_section, plan, parts, keys, file.fileno(), start)
                    for keys, start in zip(sections, starts, strict=True)
                ]:
                    job.result()
    return len(plan.header) + total


def _write_section(
    plan: Plan, parts: Sequence[Part], keys: Sequence[Key], file: int, start: int
) -> None:
    stream = Stream(file, start, _PIECE)
    for key in keys:
        count, *rest = plan.shapes[key]
        step = max(1, _PIECE // (ITEM_BYTES[plan.kind] * prod(rest)))
        for first in range(0, count, step):
            rows = range(first, min(first + step, count))
            _fill(
                stream.take((len(rows), *rest), numpy_type(plan.kind)), plan.kind, key, rows, parts
            )
    stream.flush()


def _fill(out: NDArray[Any], kind: Kind, key: Key, rows: range, parts: Sequence[Part]) -> None:
    """Put these rows of the parts beside each other, weighed."""
    given = [(part, half) for part in parts if (half := part.source.halves.get(key))]
    if sum(half.shape[1] for _, half in given) < out.shape[1]:
        out[...] = 0
    for part, half in given:
        factor = part.weight * half.scale if key[1] == "B" else 1.0
        _place(out[:, part.start : part.start + half.shape[1]], kind, half, rows, part.file, factor)


def _place(
    out: NDArray[Any], kind: Kind, half: Half, rows: range, file: TensorFile, factor: float
) -> None:
    import numpy as np

    stored = half.stored
    row = half.shape[1] * half.shape[2]
    start = stored.start + rows.start * row * ITEM_BYTES[stored.kind]
    plain = factor == 1.0 and stored.kind == kind
    if plain and out.flags.c_contiguous:
        file.read_into(out, start)
        return
    given = np.empty(out.shape, numpy_type(stored.kind))
    file.read_into(given, start)
    if plain:
        out[...] = given
    elif kind == "F32":
        np.multiply(as_f32(stored.kind, given), np.float32(factor), out=out)
    else:
        put_f32(kind, out, as_f32(stored.kind, given) * np.float32(factor))


def _layout(source: Source) -> Layout:
    return source.rank, tuple((key, half.shape) for key, half in source.halves.items())


def _common_kind(sources: Sequence[Source]) -> Kind:
    kinds = {half.stored.kind for source in sources for half in source.halves.values()}
    return kinds.pop() if len(kinds) == 1 else "F32"


@lru_cache(maxsize=32)
def _plan(layouts: tuple[Layout, ...], kind: Kind) -> Plan:
    """The same for all mixes of adapters of these layouts."""
    rank = sum(each for each, _ in layouts)
    shapes: dict[Key, Shape] = {}
    for _, halves in layouts:
        for key, (first, _, last) in halves:
            if shapes.setdefault(key, (first, rank, last)) != (first, rank, last):
                raise AdapterError(
                    f"its adapters disagree about the shape of {key[0]}.",
                    fix="They were trained for different base models; take one of them away.",
                )
    shapes = dict(sorted(shapes.items()))
    entries = {}
    for (module, half), (first, _, last) in shapes.items():
        flat = (first * rank, last) if half == "A" else (first, rank * last)
        entries[f"base_model.model.{module}.lora_{half}.weight"] = (kind, flat)
    return Plan(kind, header_of(entries), shapes)


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
