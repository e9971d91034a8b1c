"""What a mix's file holds, in which order and in which kinds of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

from adapters.engines.vllm.sources import Key, Shape, Source
from adapters.engines.vllm.tensors import ITEM_BYTES, Kind, header_of
from kiki.errors import AdapterError

# A source's rank, and its halves with their shapes and kinds.
Layout = tuple[int, tuple[tuple[Key, Shape, Kind], ...]]


@dataclass(frozen=True, slots=True)
class Planned:
    """One half of a module in the mix. ``weighed`` says that it bears the weights."""

    key: Key
    kind: Kind
    shape: Shape
    weighed: bool

    @property
    def bytes(self) -> int:
        return ITEM_BYTES[self.kind] * prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """A mix's file: what stands before the numbers, and the halves in their order.

    The halves that don't depend on the weights stand first.
    """

    header: bytes
    halves: tuple[Planned, ...]

    @cached_property
    def weighed(self) -> tuple[Planned, ...]:
        return tuple(half for half in self.halves if half.weighed)

    @cached_property
    def bytes(self) -> int:
        """Of the file."""
        return len(self.header) + sum(half.bytes for half in self.halves)


def plan_for(sources: Sequence[Source], kind: Kind | None) -> Plan:
    """How to write a mix of ``sources`` for a server that computes in ``kind``.

    Of each module the smaller half bears the weights. It is written as ``kind``; None is the
    sources' kind, or F32 where they differ. The other one stays as it is on disk where all agree
    and ``kind`` isn't narrower: the server then converts it, as it does with each source alone.

    Raises AdapterError where the sources disagree about a module's shape.
    """
    return _plan(tuple(map(_layout, sources)), kind or _common_kind(sources))


def _layout(source: Source) -> Layout:
    halves = source.halves.items()
    return source.rank, tuple((key, half.shape, half.stored.kind) for key, half in halves)


def _common_kind(sources: Sequence[Source]) -> Kind:
    kinds = {half.stored.kind for source in sources for half in source.halves.values()}
    return kinds.pop() if len(kinds) == 1 else "F32"


@lru_cache(maxsize=32)
def _plan(layouts: tuple[Layout, ...], kind: Kind) -> Plan:
    """The same for all mixes of adapters of these layouts."""
    rank = sum(each for each, _ in layouts)
    shapes: dict[Key, Shape] = {}
    stored: dict[Key, set[Kind]] = {}
    for _, halves in layouts:
        for key, (first, _, last), given in halves:
            stored.setdefault(key, set()).add(given)
            if shapes.setdefault(key, (first, rank, last)) != (first, rank, last):
                raise AdapterError(
                    f"its adapters disagree about the shape of {key[0]}.",
                    fix="They were trained for different base models; take one of them away.",
                )
    planned = []
    for key in sorted(shapes):
        weighed = key[1] == _weighed_half(key[0], shapes)
        kept = _kept_kind(stored[key], kind)
        planned.append(Planned(key, kind if weighed else kept, shapes[key], weighed))
    planned.sort(key=lambda half: half.weighed)
    entries = {}
    for half in planned:
        (module, letter), (first, _, last) = half.key, half.shape
        flat = (first * rank, last) if letter == "A" else (first, rank * last)
        entries[f"base_model.model.{module}.lora_{letter}.weight"] = (half.kind, flat)
    return Plan(header_of(entries), tuple(planned))


def _weighed_half(module: str, shapes: dict[Key, Shape]) -> str:
    return "A" if prod(shapes[module, "A"]) < prod(shapes[module, "B"]) else "B"


def _kept_kind(stored: set[Kind], kind: Kind) -> Kind:
    [*kinds] = stored
    return kinds[0] if len(kinds) == 1 and ITEM_BYTES[kinds[0]] <= ITEM_BYTES[kind] else kind
