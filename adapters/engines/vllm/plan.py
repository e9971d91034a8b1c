"""What a mix's file holds, in which order and in which kinds of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from adapters.engines.vllm.sources import Key, Shape, Source
from adapters.engines.vllm.tensors import ITEM_BYTES, Kind, header_of
from kiki.errors import AdapterError

# A source's rank, and its halves with their shapes and kinds, and the scales of their modules.
Layout = tuple[int, tuple[tuple[Key, Shape, Kind, float], ...]]
# What the halves of a run have in common: whether they bear the weights, their kind, rank and
# last axis in the mix, and of each source that has them its number, rank, kind and scale.
_Likeness = tuple[bool, Kind, tuple[int, int], tuple[tuple[int, int, Kind, float], ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """Halves that lie one after the other from byte ``start`` of the mix's file.

    They have the same inputs (A) or experts (B), and each source's are of one rank, kind and
    scale: so they make one array of ``shape``, of which each half is some rows, from ``firsts`` on.
    ``weighed`` says that they bear the weights.
    """

    keys: tuple[Key, ...]
    firsts: tuple[int, ...]
    shape: Shape
    kind: Kind
    weighed: bool
    start: int

    @property
    def row_bytes(self) -> int:
        return ITEM_BYTES[self.kind] * prod(self.shape[1:])

    @property
    def bytes(self) -> int:
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A mix's file of ``bytes``: what stands before the numbers, and the runs in their order.

    Those that don't depend on the weights stand first.
    """

    header: bytes
    runs: tuple[Run, ...]

    @property
    def bytes(self) -> int:
        return self.runs[-1].start + self.runs[-1].bytes


def plan_for(sources: Sequence[Source], kind: Kind | None) -> Plan:
    """How to write a mix of ``sources`` for a server that computes in ``kind``.

    Of each module the smaller half bears the weights. It is written as ``kind``; None is the
    sources' kind, or F32 where they differ. The other one stays as it is on disk where all agree
    and ``kind`` isn't narrower: the server then converts it, as it does with each source alone.

    Raises AdapterError where the sources disagree about a module's shape.
    """
    return _plan(tuple(map(_layout, sources)), kind or _common_kind(sources))


def _layout(source: Source) -> Layout:
    return source.rank, tuple(
        (key, half.shape, half.stored.kind, source.halves[key[0], "B"].scale)
        for key, half in source.halves.items()
    )


def _common_kind(sources: Sequence[Source]) -> Kind:
    kinds = {half.stored.kind for source in sources for half in source.halves.values()}
    return kinds.pop() if len(kinds) == 1 else "F32"


@lru_cache(maxsize=32)
def _plan(layouts: tuple[Layout, ...], kind: Kind) -> Plan:
    """The same for all mixes of adapters of these layouts."""
    rank = sum(each for each, _ in layouts)
    shapes: dict[Key, Shape] = {}
    parts: dict[Key, list[tuple[int, int, Kind, float]]] = {}  # source, rank, kind, scale
    for number, (_, halves) in enumerate(layouts):
        for key, (first, each, last), stored, scale in halves:
            if shapes.setdefault(key, (first, rank, last)) != (first, rank, last):
                raise AdapterError(
                    f"its adapters disagree about the shape of {key[0]}.",
                    fix="They were trained for different base models; take one of them away.",
                )
            parts.setdefault(key, []).append((number, each, stored, scale))
    alike: dict[_Likeness, list[Key]] = {}
    for key in sorted(shapes):
        weighed = key[1] == _weighed_half(key[0], shapes)
        wanted = kind if weighed else _kept_kind({part[2] for part in parts[key]}, kind)
        likeness = weighed, wanted, shapes[key][1:], tuple(parts[key])
        alike.setdefault(likeness, []).append(key)
    return _laid_out(alike, shapes)


def _laid_out(alike: Mapping[_Likeness, Sequence[Key]], shapes: Mapping[Key, Shape]) -> Plan:
    entries: dict[str, tuple[Kind, Sequence[int]]] = {}
    runs = []
    start = 0
    for (weighed, kind, (rank, last), _), keys in sorted(alike.items(), key=_is_weighed):
        firsts = []
        rows = 0
        for key in keys:
            firsts.append(rows)
            first = shapes[key][0]
            rows += first
            flat = (first * rank, last) if key[1] == "A" else (first, rank * last)
            entries[f"base_model.model.{key[0]}.lora_{key[1]}.weight"] = (kind, flat)
        run = Run(tuple(keys), tuple(firsts), (rows, rank, last), kind, weighed, start)
        runs.append(run)
        start += run.bytes
    header = header_of(entries)
    return Plan(header, tuple(replace(run, start=len(header) + run.start) for run in runs))


def _is_weighed(item: tuple[_Likeness, Sequence[Key]]) -> bool:
    return item[0][0]


def _weighed_half(module: str, shapes: Mapping[Key, Shape]) -> str:
    return "A" if prod(shapes[module, "A"]) < prod(shapes[module, "B"]) else "B"


def _kept_kind(stored: set[Kind], kind: Kind) -> Kind:
    [*kinds] = stored
    return kinds[0] if len(kinds) == 1 and ITEM_BYTES[kinds[0]] <= ITEM_BYTES[kind] else kind
