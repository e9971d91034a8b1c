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
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.engines.vllm.plan import Plan, Planned, plan_for
from adapters.engines.vllm.sources import Half, Source
from adapters.engines.vllm.stream import Stream
from adapters.engines.vllm.tensors import (
    ITEM_BYTES,
    Kind,
    TensorFile,
    numpy_type,
)
from adapters.engines.vllm.weighing import Weighing
from adapters.forms.folder import CONFIG_FILE
from adapters.forms.peft import WEIGHTS_FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1 << 20  # bytes; read, weighed and written together
_THREAD_BYTES = 16 << 20  # a thread more for each of these: of less it costs more than it saves


@dataclass(frozen=True, slots=True)
class Part:
    """A source in a mix: its file, its weight, and where its ranks begin in the mix's."""

    source: Source
    file: TensorFile
    weight: float
    start: int
    weighings: dict[tuple[Kind, Kind, float], Weighing] = field(default_factory=dict)

    def weighing(self, half: Half, planned: Planned) -> Weighing:
        """What becomes of the numbers of ``half``; the same for all halves of one factor."""
        scale = self.source.halves[planned.key[0], "B"].scale
        key = half.stored.kind, planned.kind, self.weight * scale if planned.weighed else 1.0
        if key not in self.weighings:
            self.weighings[key] = Weighing(*key)
        return self.weighings[key]


def compose(
    parts: Sequence[tuple[Source, float]],
    out: Path,
    *,
    kind: Kind | None = None,
    old: Path | None = None,
    same_adapters: bool = False,
    threads: int = min(8, os.cpu_count() or 1),
) -> int:
    """Write what ``parts`` do together, each with its weight, as one adapter; returns its bytes.

    A module that a part leaves alone gets zeros in that part's place. ``kind`` is best the
    server's own (see ``plan_for``). Products with the weights are computed in f32 and rounded
    once: at most half a unit in the last place, as when the trained number was rounded to that
    kind (relative 2^-9 in bf16, 2^-12 in f16), and nothing where the factor is a power of two.

    ``old`` is a composed adapter that nobody needs any more: where its file is as large, it is
    written over, which takes no new pages of the RAM disk. With ``same_adapters`` it is made of
    the same ones in the same order, and only what bears the weights is written.

    Raises AdapterError where the parts don't fit each other, or one's files aren't those that
    were opened.
    """
    sources = [source for source, _ in parts]
    rank = sum(source.rank for source in sources)
    plan = plan_for(sources, kind)
    taken = _take_over(old, out, plan.bytes) if old else False
    if not taken:
        out.mkdir(parents=True)
    with ExitStack() as stack:
        opened, start = [], 0
        for source, weight in parts:
            source.check()
            file = stack.enter_context(TensorFile(*source.weights))
            opened.append(Part(source, file, weight, start))
            start += source.rank
        _write(plan, opened, out / WEIGHTS_FILE, threads, only_weighed=taken and same_adapters)
    _write_config([source.config for source in sources], rank, out / CONFIG_FILE)
    return plan.bytes


def _take_over(old: Path, out: Path, size: int) -> bool:
    """Whether ``out`` is ``old`` under a new name; else it is removed.

    Never of another size: vLLM may have the file of an adapter it no longer knows still mapped,
    which is harmless while nothing is cut off.
    """
    if (old / WEIGHTS_FILE).stat().st_size == size:
        old.rename(out)
        return True
    shutil.rmtree(old)
    return False


def _write(
    plan: Plan, parts: Sequence[Part], path: Path, threads: int, *, only_weighed: bool
) -> None:
    halves = [half for half in plan.halves if half.weighed or not only_weighed]
    size = sum(half.bytes for half in halves)
    threads = max(1, min(threads, size // _THREAD_BYTES))
    with path.open("r+b" if path.exists() else "xb") as file:
        if not only_weighed:
            os.pwrite(file.fileno(), plan.header, 0)
        sections: list[list[Planned]] = [[] for _ in range(threads)]
        starts = [0] * threads
        before = 0
        for half in halves:
            number = min(before * threads // size, threads - 1)
            if not sections[number]:
                starts[number] = plan.bytes - size + before
            sections[number].append(half)
            before += half.bytes
        if threads == 1:
            _write_section(parts, sections[0], file.fileno(), starts[0])
        else:
            with ThreadPoolExecutor(threads) as pool:  # numpy and reading let go of the lock
                for job in [
                    pool.submit(_write_section, parts, section, file.fileno(), start)
                    for section, start in zip(sections, starts, strict=True)
                ]:
                    job.result()


def _write_section(parts: Sequence[Part], halves: Sequence[Planned], file: int, start: int) -> None:
    """Write ``halves``, one after the other, from byte ``start`` of the file."""
    stream = Stream(file, start, _PIECE)
    for planned in halves:
        count, *rest = planned.shape
        given = [
            (part, half, part.weighing(half, planned))
            for part in parts
            if (half := part.source.halves.get(planned.key))
        ]
        whole = sum(half.shape[1] for _, half, _ in given) == planned.shape[1]
        step = max(1, _PIECE // (ITEM_BYTES[planned.kind] * prod(rest)))
        for first in range(0, count, step):
            rows = range(first, min(first + step, count))
            out = stream.take((len(rows), *rest), numpy_type(planned.kind))
            if not whole:
                out[...] = 0
            for part, half, weighing in given:
                place = out[:, part.start : part.start + half.shape[1]]
                _place(place, half, rows, part.file, weighing)
    stream.flush()


def _place(
    out: NDArray[Any], half: Half, rows: range, file: TensorFile, weighing: Weighing
) -> None:
    import numpy as np

    stored = half.stored
    row = half.shape[1] * half.shape[2]
    start = stored.start + rows.start * row * ITEM_BYTES[stored.kind]
    if weighing.changes_nothing and out.flags.c_contiguous:
        file.read_into(out, start)
        return
    given = np.empty(out.shape, numpy_type(stored.kind))
    file.read_into(given, start)
    if weighing.changes_nothing:
        out[...] = given
    else:
        weighing.put(given, out)


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
