"""A weighted mix of adapters as one adapter: exact, because a sum of updates is one update.

sum(w_i s_i B_i A_i) = [w_1 s_1 B_1 | w_2 s_2 B_2 | ...] [A_1; A_2; ...]: the A are stacked on
their rank axis, the B joined on theirs. The rank is the sum of the ranks, the scale is 1. (PEFT
calls this ``combination_type="cat"``.)

It works on PEFT's files and not on ``adapters.lora.Lora``: the mix is written in the same layout,
by pieces small enough for the processor's cache. ``lora_A`` is (experts * rank, inputs) and
``lora_B`` (outputs, rank * experts), with one expert in a dense module; seen as (experts, rank,
inputs) and (outputs, rank, experts), the rank is the middle axis of both.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.engines.vllm.plan import Plan, Run, plan_for
from adapters.engines.vllm.slate import Slate
from adapters.engines.vllm.sources import Half, Source
from adapters.engines.vllm.tensors import Kind, TensorFile, numpy_type
from adapters.engines.vllm.weighing import Weighing
from adapters.forms.folder import CONFIG_FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 2 << 20  # bytes of the mix; of smaller ones, two threads wait for each other


@dataclass(frozen=True, slots=True)
class Part:
    """A source in a mix: its file, its weight, and where its ranks begin in the mix's."""

    source: Source
    file: TensorFile
    weight: float
    start: int
    weighings: dict[tuple[Kind, Kind, float], Weighing] = field(default_factory=dict)

    def weighing(self, half: Half, run: Run) -> Weighing:
        """What becomes of the numbers of ``half``; the same for all halves of one factor."""
        scale = self.source.halves[run.keys[0][0], "B"].scale
        key = half.stored.kind, run.kind, self.weight * scale if run.weighed else 1.0
        if key not in self.weighings:
            self.weighings[key] = Weighing(*key)
        return self.weighings[key]


def compose(
    parts: Sequence[tuple[Source, float]],
    out: Path,
    *,
    kind: Kind | None = None,
    slates: Sequence[Slate] = (),
    adapters: str = "",
    threads: int = min(8, os.cpu_count() or 1),
) -> Slate:
    """Write what ``parts`` do together, each with its weight, as one adapter.

    A module that a part leaves alone gets zeros in that part's place. ``kind`` is best the
    server's own (see ``plan_for``). Products with the weights are computed in f32 and rounded
    once: at most half a unit in the last place, as when the trained number was rounded to that
    kind (relative 2^-9 in bf16, 2^-12 in f16), and nothing where the factor is a power of two.

    One of ``slates`` is written on where it fits; where none does, they are removed and a new one
    is made. Where it bears a mix of the same ``adapters`` (a name for them and their order), only
    what bears the weights is written.

    Raises AdapterError where the parts don't fit each other, or one's files aren't those that
    were opened, OSError where the disk is full.
    """
    sources = [source for source, _ in parts]
    rank = sum(source.rank for source in sources)
    plan = plan_for(sources, kind)
    slate = _taken(slates, plan.bytes, adapters, out)
    only_weighed = bool(adapters) and slate.adapters == adapters
    slate.adapters, slate.clean = "", False
    with ExitStack() as stack:
        opened, start = [], 0
        for source, weight in parts:
            source.check()
            file = stack.enter_context(TensorFile(*source.weights))
            opened.append(Part(source, file, weight, start))
            start += source.rank
        _write(plan, opened, slate.memory, threads, only_weighed=only_weighed)
    _write_config([source.config for source in sources], rank, out / CONFIG_FILE)
    slate.adapters = adapters
    return slate


def _taken(slates: Sequence[Slate], size: int, adapters: str, out: Path) -> Slate:
    """The best of ``slates`` under the name ``out``, or a new one."""
    fitting = [slate for slate in slates if slate.fits(size)]
    if fitting:  # those of the same adapters first, those that nobody used last
        best = min(fitting, key=lambda slate: (slate.adapters != adapters, slate.clean))
        best.become(out, size)
        return best
    for slate in slates:
        slate.remove()
    return Slate.make(out, size)


def _write(
    plan: Plan,
    parts: Sequence[Part],
    memory: NDArray[Any],
    threads: int,
    *,
    only_weighed: bool,
) -> None:
    import numpy as np

    if not only_weighed:
        memory[: len(plan.header)] = np.frombuffer(plan.header, np.uint8)
    pieces = [
        (run, rows) for run in plan.runs if run.weighed or not only_weighed for rows in _pieces(run)
    ]

    def write(piece: tuple[Run, range]) -> None:
        run, rows = piece
        start = run.start + rows.start * run.row_bytes
        out = memory[start : start + len(rows) * run.row_bytes].reshape(len(rows), -1)
        for part in parts:
            _place(part, run, rows, out)

    if threads == 1 or len(pieces) == 1:
        for piece in pieces:
            write(piece)
        return
    with ThreadPoolExecutor(threads) as pool:  # numpy and reading let go of the lock
        for _ in pool.map(write, pieces):
            pass


def _pieces(run: Run) -> Iterator[range]:
    count, step = run.shape[0], max(1, _PIECE // run.row_bytes)
    for first in range(0, count, step):
        yield range(first, min(first + step, count))


def _place(part: Part, run: Run, rows: range, out: NDArray[Any]) -> None:
    """Put the part's share of ``rows`` of the run into its place in ``out``, zeros beside it.

    ``out`` are the rows as bytes. A share is moved as one item of so many bytes, which numpy does
    faster than many numbers.
    """
    import numpy as np

    rank_bytes = run.row_bytes // run.shape[1]
    half = part.source.halves.get(run.keys[0])
    rank = half.shape[1] if half else 0
    first, end = ((part.start + ranks) * rank_bytes for ranks in (rank, part.source.rank))
    out[:, first:end] = 0
    if half is None:
        return
    given = np.empty((len(rows), rank * run.shape[2]), numpy_type(half.stored.kind))
    _read(part, run, rows, given)
    item = f"V{rank * rank_bytes}"
    place = out[:, part.start * rank_bytes : first].view(item)
    place[...] = part.weighing(half, run).weigh(given).view(item)


def _read(part: Part, run: Run, rows: range, out: NDArray[Any]) -> None:
    """Fill ``out`` with the part's numbers of ``rows`` of the run, half by half."""
    row_bytes = out[0].nbytes
    flat = memoryview(out.reshape(-1).view("u1").data)
    number = bisect_right(run.firsts, rows.start) - 1
    row = rows.start
    while row < rows.stop:
        half = part.source.halves[run.keys[number]]
        first = run.firsts[number]
        end = min(first + half.shape[0], rows.stop)
        place = flat[(row - rows.start) * row_bytes : (end - rows.start) * row_bytes]
        part.file.read_into(place, half.stored.start + (row - first) * row_bytes)
        row, number = end, number + 1


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
