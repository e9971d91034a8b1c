"""Atlas: finds episodes by the meaning of what the user said."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreError, StoreUnavailableError
from memory.episode import Owner

if TYPE_CHECKING:
    from qdrant_edge import EdgeShard, Filter

logger = logging.getLogger("kiki.memory")

REBUILD = "Run `kiki memory rebuild`: it makes the stores again from the journal."
_NAMESPACE = uuid.UUID("5f0e9f63-36c4-4a4c-9d7a-0a4f4e6b8f11")


@dataclass(frozen=True, slots=True)
class VectorPoint:
    """An episode's vector: float32, unit length, of the store's dimension."""

    id: str
    owner: Owner
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VectorHit:
    """``score`` is the cosine, -1 to 1."""

    id: str
    score: float


class VectorStore(Protocol):
    """Vectors of episodes. Every search stays inside one owner. Thread-safe.

    ``generation`` changes when the store is made anew, so that a journal's cursor into an older
    one is not trusted. All raise `StoreError`, or `StoreUnavailableError` when down for now.
    """

    @property
    def generation(self) -> str: ...

    def upsert(self, points: Sequence[VectorPoint]) -> None: ...

    def search(
        self,
        owner: Owner,
        vector: NDArray[np.float32],
        limit: int,
        exclude: Collection[str] = (),
    ) -> list[VectorHit]: ...

    def delete(self, ids: Collection[str]) -> None: ...

    def count(self, owner: Owner | None = None) -> int: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class EdgeAtlas:
    """Qdrant's engine in this process, one folder.

    Vectors are kept as float16 and scanned under the owner's payload filter. HNSW is left out:
    it is built by a call that blocks for minutes, and the scan meets the bounds without it
    (see `memory.bench`).
    """

    def __init__(self, folder: Path, *, embedding_id: str, dimension: int) -> None:
        self._folder = folder
        self._meta = folder / "atlas.json"
        self._opening = folder / "opening"
        self._write_lock = threading.Lock()
        if self._opening.exists():
            # A damaged file can abort the process inside load(); the journal makes a new store.
            logger.warning("%s ended the process that last opened it: made anew", folder)
            self._meta.unlink(missing_ok=True)
        if self._meta.exists():
            self._check(embedding_id, dimension)
            self._load()
        else:
            self._create(embedding_id, dimension)

    @property
    def generation(self) -> str:
        return self._generation

    def _create(self, embedding_id: str, dimension: int) -> None:
        import qdrant_edge as qdrant

        # Without its meta file the folder holds a creation that was interrupted.
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._named_errors():
            (self._folder / "shard").mkdir(mode=0o700, parents=True)
            vectors = qdrant.EdgeVectorParams(
                size=dimension,
                distance=qdrant.Distance.Dot,
                datatype=qdrant.VectorStorageDatatype.Float16,
            )
            shard = qdrant.EdgeShard.create(
                str(self._folder / "shard"), qdrant.EdgeConfig(vectors=vectors)
            )
            index = qdrant.UpdateOperation.create_field_index
            shard.update(index("tenant", qdrant.KeywordIndexParams(is_tenant=True)))
            shard.update(index("user", qdrant.KeywordIndexParams()))
            shard.flush()
        self._shard: EdgeShard = shard
        self._generation = uuid.uuid4().hex
        meta = {
            "embedding": embedding_id,
            "dimension": dimension,
            "generation": self._generation,
        }
        draft = self._meta.with_suffix(".draft")
        draft.write_text(json.dumps(meta))
        draft.replace(self._meta)

    def _check(self, embedding_id: str, dimension: int) -> None:
        try:
            meta = json.loads(self._meta.read_text())
            self._generation = str(meta["generation"])
            found = (meta["embedding"], meta["dimension"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._meta} is damaged ({error!r}).", fix=REBUILD) from error
        if found != (embedding_id, dimension):
            raise StoreError(
                f"The store {self._folder} was made with the embedding model {found[0]}"
                f" ({found[1]}-d); this one is {embedding_id} ({dimension}-d).",
                fix=REBUILD,
            )

    def _load(self) -> None:
        import qdrant_edge as qdrant

        self._opening.touch()
        try:
            with self._named_errors(fix=REBUILD):
                self._shard = qdrant.EdgeShard.load(str(self._folder / "shard"))
        finally:
            self._opening.unlink()

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        import qdrant_edge as qdrant

        batch = [
            qdrant.Point(
                _point_id(point.id),
                point.vector.tolist(),
                {"id": point.id, "tenant": point.owner.tenant, "user": point.owner.user},
            )
            for point in points
        ]
        with self._write_lock, self._named_errors():
            self._shard.update(qdrant.UpdateOperation.upsert_points(batch))

    def search(
        self,
        owner: Owner,
        vector: NDArray[np.float32],
        limit: int,
        exclude: Collection[str] = (),
    ) -> list[VectorHit]:
        import qdrant_edge as qdrant

        request = qdrant.SearchRequest(
            query=qdrant.Query.Nearest(vector.tolist()),
            limit=limit,
            filter=_owned_by(owner, exclude),
            with_payload=["id"],
        )
        with self._named_errors():
            found = self._shard.search(request)
        return [VectorHit(point.payload["id"], point.score) for point in found if point.payload]

    def delete(self, ids: Collection[str]) -> None:
        import qdrant_edge as qdrant

        points: list[Any] = [_point_id(id_) for id_ in ids]
        with self._write_lock, self._named_errors():
            self._shard.update(qdrant.UpdateOperation.delete_points(points))

    def count(self, owner: Owner | None = None) -> int:
        import qdrant_edge as qdrant

        wanted = None if owner is None else _owned_by(owner, ())
        with self._named_errors():
            return self._shard.count(qdrant.CountRequest(exact=True, filter=wanted))

    def flush(self) -> None:
        with self._write_lock, self._named_errors():
            self._shard.flush()

    def close(self) -> None:
        with self._write_lock, self._named_errors():
            self._shard.close()

    @contextmanager
    def _named_errors(self, *, fix: str | None = None) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # The engine raises bare Exception, and its panics derive from BaseException only.
            if type(error) is Exception or type(error).__name__ == "PanicException":
                kind = StoreError if fix else StoreUnavailableError
                raise kind(f"The store {self._folder} failed: {error}.", fix=fix) from error
            raise


def _point_id(id_: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, id_))


def _owned_by(owner: Owner, exclude: Collection[str]) -> Filter:
    import qdrant_edge as qdrant

    def equals(key: str, value: str) -> qdrant.FieldCondition:
        return qdrant.FieldCondition(key, match=qdrant.MatchValue(value))

    must: list[Any] = [equals("tenant", owner.tenant), equals("user", owner.user)]
    if not exclude:
        return qdrant.Filter(must=must)
    excluded: set[Any] = {_point_id(id_) for id_ in exclude}
    return qdrant.Filter(must=must, must_not=[qdrant.HasIdCondition(excluded)])
