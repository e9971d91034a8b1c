"""The adapters served now, with what the engine needs to know of each."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.adapter import Adapter, Refusal
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.capacity import Capacity, Size
from adapters.engines.vllm.compose import compose
from adapters.engines.vllm.plan import plan_for
from adapters.engines.vllm.slate import Slate
from adapters.engines.vllm.sources import Source, open_source
from adapters.engines.vllm.store import Recipe
from adapters.engines.vllm.tensors import Kind
from adapters.mix import MAX_ADAPTERS, Mix
from kiki.errors import AdapterError, UnknownAdapterError

log = logging.getLogger("kiki.adapters")


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter that fits, as it was when that was found."""

    adapter: Adapter
    source: Source
    size: Size


@dataclass(frozen=True, slots=True)
class Shelf:
    """One state of what is served. It never changes: a request keeps the one it began with.

    ``kind`` is that of the numbers in composed adapters (see ``BaseModel``).
    """

    placed: Mapping[str, Placed] = field(default_factory=dict)
    kind: Kind | None = None

    @property
    def fingerprints(self) -> frozenset[str]:
        return frozenset(placed.adapter.fingerprint for placed in self.placed.values())

    def check(self, mix: Mix) -> None:
        """Raises UnknownAdapterError for a name that isn't served."""
        for name in mix.names:
            if name not in self.placed:
                raise UnknownAdapterError(
                    f"The engine has no adapter {name!r}.",
                    param=f"kiki.adapters.{name}",
                    fix=f"Loaded: {', '.join(self.placed) or 'none'}.",
                )

    def fitting(self, mix: Mix, capacity: Capacity) -> Mix:
        """The part of the mix that fits; names that aren't served are left for ``check``."""
        if any(name not in self.placed for name in mix.names):
            return mix
        return capacity.fitting(mix, {name: self.placed[name].size for name in mix.names})

    def largest_mix(self, capacity: Capacity) -> int:
        """Bytes of the file of the largest mix that fits; 0 where nothing is served."""
        by_size = sorted(self.placed, key=lambda name: self.placed[name].size.bytes, reverse=True)
        mix = self.fitting(Mix.of((name, 1.0) for name in by_size[:MAX_ADAPTERS]), capacity)
        sources = [self.placed[name].source for name in mix.names]
        return plan_for(sources, self.kind).bytes if sources else 0

    def nothing(self) -> Recipe | None:
        """An adapter that adds zero, for servers on which the base needs one; None without any."""
        for placed in self.placed.values():
            parts = [(placed, 0.0)]
            return self._composed("nothing", parts)
        return None

    def recipe(self, mix: Mix) -> Recipe:
        """How to serve the mix, whose names are all served."""
        parts = [(self.placed[name], weight) for name, weight in mix.weights]
        first, weight = parts[0]
        if len(parts) == 1 and weight == 1.0 and first.source.native:
            return Recipe(
                _key(parts),
                str(mix),
                frozenset([first.adapter.fingerprint]),
                folder=first.source.folder,
                check=first.source.check,
            )
        return self._composed(str(mix), parts)

    def _composed(self, label: str, parts: Sequence[tuple[Placed, float]]) -> Recipe:
        sources = [(placed.source, weight) for placed, weight in parts]
        adapters = _key([(placed, 1.0) for placed, _ in parts])

        def make(out: Path, slates: Sequence[Slate]) -> Slate:
            return compose(sources, out, kind=self.kind, slates=slates, adapters=adapters)

        return Recipe(
            _key(parts),
            label,
            frozenset(placed.adapter.fingerprint for placed, _ in parts),
            sum(placed.size.bytes for placed, _ in parts),
            make=make,
        )


def fill(
    adapters: Sequence[Adapter],
    before: Shelf,
    base: BaseModel,
    capacity: Capacity,
    converted: Path,
) -> tuple[Shelf, tuple[Refusal, ...]]:
    """The shelf with exactly these adapters, and those left out. Reads and converts: slow."""
    placed: dict[str, Placed] = {}
    refused = []
    for adapter in adapters:
        old = before.placed.get(adapter.name)
        if old and old.adapter == adapter and old.source.unchanged:
            placed[adapter.name] = old
            continue
        try:
            placed[adapter.name] = _place(adapter, base, capacity, converted)
        except AdapterError as error:
            log.error("adapter %s left out: %s", adapter.name, error)
            refused.append(Refusal(adapter.name, adapter.path, str(error)))
    return Shelf(placed, base.kind), tuple(refused)


def _place(adapter: Adapter, base: BaseModel, capacity: Capacity, converted: Path) -> Placed:
    source = open_source(adapter, base, converted)
    size = Size(source.rank, source.bytes_as(base.kind))
    if size.rank > capacity.rank:
        raise AdapterError(
            f"its rank is {size.rank}; a slot holds {capacity.rank}.",
            fix="Raise vllm_max_lora_rank.",
        )
    if size.bytes > capacity.store_bytes:
        raise AdapterError(
            f"composing it takes {size.bytes / 1e9:.1f} GB; the work folder has "
            f"{capacity.store_bytes / 1e9:.1f} GB.",
            fix="Free space there, or name another folder with vllm_work_dir.",
        )
    return Placed(adapter, source, size)


def _key(parts: Sequence[tuple[Placed, float]]) -> str:
    text = "\n".join(f"{p.adapter.name} {p.adapter.fingerprint} {w!r}" for p, w in parts)
    return hashlib.sha256(text.encode()).hexdigest()
