"""Texts of an owner with their vectors, held in memory while the owner is asked about."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from memory.cerebellum.arbitrate import about
from memory.cerebellum.concepts import Statement, read
from memory.episode import Owner

MAX_OWNERS = 32
"""Owners whose texts are held at once."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Kept(Protocol):
    """Something with an id and a text."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...


KeptT = TypeVar("KeptT", bound=Kept)
GivenT = TypeVar("GivenT", bound=Kept, covariant=True)


class Source(Protocol[GivenT]):
    """Where the texts come from. ``state`` is another after any change of the owner's."""

    def state(self, owner: Owner) -> tuple[int, int]: ...

    def newest(self, owner: Owner) -> Sequence[tuple[GivenT, NDArray[np.float32] | None]]: ...

    def keep_vectors(self, vectors: Mapping[str, NDArray[np.float32]]) -> None: ...


@dataclass(frozen=True, slots=True)
class Shelf(Generic[KeptT]):
    """``vectors`` is float32 (len(items), dimension), each row of unit length; ``by_subject``
    gives the places of the items that are about a concept."""

    state: tuple[int, int]
    items: tuple[KeptT, ...]
    statements: tuple[Statement, ...]
    vectors: NDArray[np.float32]
    by_subject: Mapping[str, Sequence[int]]

    def compared(self, vector: NDArray[np.float32]) -> list[tuple[KeptT, Statement, float]]:
        """Each item with its statement and its cosine to ``vector``."""
        if not self.items:
            return []
        return list(zip(self.items, self.statements, self.cosines(vector).tolist(), strict=True))

    def cosines(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of each item. Not by BLAS: its threads wait for each other when the cores are busy, which
        takes longer than the product."""
        product: NDArray[np.float32] = np.einsum("ij,j->i", self.vectors, vector)
        return product


class Shelves(Generic[KeptT]):
    """A shelf an owner, read again after a change, so that it is never older than its source;
    texts without a vector are embedded. Thread-safe; raises `StoreError`."""

    def __init__(self, source: Source[KeptT], embed: Embed) -> None:
        self._source = source
        self._embed = embed
        self._held: OrderedDict[Owner, Shelf[KeptT]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, owner: Owner) -> Shelf[KeptT]:
        state = self._source.state(owner)
        with self._lock:
            found = self._held.get(owner)
            if found is not None and found.state == state:
                self._held.move_to_end(owner)
                return found
        made = self._read(owner, state)
        with self._lock:
            self._held[owner] = made
            self._held.move_to_end(owner)
            while len(self._held) > MAX_OWNERS:
                self._held.popitem(last=False)
        return made

    def _read(self, owner: Owner, state: tuple[int, int]) -> Shelf[KeptT]:
        rows = self._source.newest(owner)
        vectors = {item.id: vector for item, vector in rows if vector is not None}
        missing = [item for item, vector in rows if vector is None]
        if missing:
            made = self._embed([item.text for item in missing])
            embedded = {item.id: one for item, one in zip(missing, made, strict=True)}
            self._source.keep_vectors(embedded)
            vectors |= embedded
        items = tuple(item for item, _ in rows)
        matrix = np.stack([vectors[item.id] for item in items]) if items else np.empty((0, 0))
        statements = tuple(read(item.text) for item in items)
        by_subject: defaultdict[str, list[int]] = defaultdict(list)
        for place, statement in enumerate(statements):
            for concept in about(statement) or statement.concepts:
                by_subject[concept].append(place)
        return Shelf(state, items, statements, matrix.astype(np.float32), dict(by_subject))
