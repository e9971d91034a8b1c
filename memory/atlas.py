"""Atlas: finds episodes by the meaning of what the user said."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreError
from memory.episode import Owner

REBUILD = "Run `kiki memory rebuild`: it makes the stores again from the journal."
_NAMESPACE = uuid.UUID("5f0e9f63-36c4-4a4c-9d7a-0a4f4e6b8f11")


@dataclass(frozen=True, slots=True)
class VectorPoint:
    """An episode's vector: float32, unit length, of the store's dimension.

    ``record`` is the episode as JSON and ``written`` its version (`memory.versions`), for a store
    that other journals share.
    """

    id: str
    owner: Owner
    vector: NDArray[np.float32]
    record: str = ""
    written: int = 0


@dataclass(frozen=True, slots=True)
class VectorHit:
    """``score`` is the cosine, -1 to 1."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Removed:
    """What was deleted: every copy whose version is ``until`` or less (`memory.versions`). ``at``
    is when the other gateways were told, in microseconds since 1970."""

    id: str
    owner: Owner
    until: int
    at: int = 0


class VectorStore(Protocol):
    """Vectors of episodes. Every search stays inside one owner. Thread-safe.

    ``generation`` changes when the store is made anew, so that a journal's cursor into an older
    one is not trusted. All raise `StoreError`, or `StoreUnavailableError` when down for now.
    """

    @property
    def generation(self) -> str: ...

    @property
    def shared(self) -> bool:
        """Whether other processes, with journals of their own, write here too."""
        ...

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        """Puts the points in the place of their owner's of the same ids; in a shared store one
        that is older than what is there is left out."""
        ...

    def search(
        self,
        owner: Owner,
        vector: NDArray[np.float32],
        limit: int,
        exclude: Collection[str] = (),
    ) -> list[VectorHit]: ...

    def fetch(self, owner: Owner, ids: Collection[str]) -> list[VectorPoint]:
        """The owner's points among ``ids``, with their records, where the store is shared."""
        ...

    def delete(self, removed: Sequence[Removed]) -> None:
        """In a shared store what is newer than its removal stays."""
        ...

    def publish(self, removed: Sequence[Removed]) -> None:
        """Tells the other gateways of a shared store what was deleted for good; a note outlives
        a store that is made anew."""
        ...

    def published(self, since: int) -> list[Removed]:
        """What any gateway published at ``since`` (microseconds since 1970) or later."""
        ...

    def verify(self) -> None:
        """Raises `StoreReplacedError` when another process made the store anew since it was
        opened."""
        ...

    def count(self, owner: Owner | None = None) -> int: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def point_id(owner: Owner, id_: str) -> str:
    """The engine takes UUIDs only; two owners may use the same id."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([owner.tenant, owner.user, id_])))


def owner_key(owner: Owner) -> str:
    """One string an owner, whatever the names hold."""
    return json.dumps([owner.tenant, owner.user])


def check_model(store: str, found: tuple[object, object], wanted: tuple[str, int]) -> None:
    """Raises `StoreError` for a store of another embedding model (id, dimension)."""
    if found != wanted:
        raise StoreError(
            f"The store {store} was made with the embedding model {found[0]}"
            f" ({found[1]}-d); this one is {wanted[0]} ({wanted[1]}-d).",
            fix=REBUILD,
        )
