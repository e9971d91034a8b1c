"""Atlas on a Qdrant server, which several gateways may share."""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreError, StoreReplacedError, StoreUnavailableError
from memory.atlas import Removed, VectorHit, VectorPoint, check_model, owner_key, point_id
from memory.episode import Owner
from memory.qdrant_errors import named_error
from memory.remote import Limits, LoopThread

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient
    from qdrant_client.models import Filter

COLLECTION = "kiki"
OVERSAMPLING = 2.0
PAGE = 1000
Result = TypeVar("Result")


class QdrantAtlas:
    """A collection of vectors (float32, int8 codes in memory, an HNSW graph an owner, which the
    server keeps by itself), and one of notes on what was deleted.

    The embedding model and the generation stand in the collection's metadata (Qdrant 1.16).
    ``url`` is ``http[s]://host:port``; with ``grpc_port`` the calls go by gRPC.
    """

    def __init__(
        self,
        url: str,
        *,
        embedding_id: str,
        dimension: int,
        collection: str = COLLECTION,
        grpc_port: int | None = None,
        api_key: str | None = None,
        limits: Limits = Limits(),  # noqa: B008, it is frozen
        anew: bool = False,
    ) -> None:
        self.url = url
        self._embedding_id = embedding_id
        self._dimension = dimension
        self._collection = collection
        self._notes = f"{collection}-removed"
        self._limits = limits
        self._client = _connect(url, grpc_port, api_key, limits)
        self._loop = LoopThread(f"qdrant {url}")
        try:
            self._generation = self._run(lambda: self._prepare(anew), limits.write_s)
        except BaseException:
            self.close()
            raise

    @property
    def generation(self) -> str:
        return self._generation

    @property
    def shared(self) -> bool:
        return True

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        from qdrant_client import models

        batch = [
            models.PointStruct(
                id=point_id(point.id),
                vector=point.vector.tolist(),
                payload={
                    "id": point.id,
                    "owner": owner_key(point.owner),
                    "record": point.record,
                },
            )
            for point in points
        ]

        self._run(
            lambda: self._client.upsert(self._collection, batch, wait=True), self._limits.write_s
        )

    def publish(self, removed: Sequence[Removed]) -> None:
        from qdrant_client import models

        notes = [
            models.PointStruct(
                id=point_id(one.id),
                vector={},
                payload={
                    "id": one.id,
                    "tenant": one.owner.tenant,
                    "user": one.owner.user,
                    "at": one.at,
                },
            )
            for one in removed
        ]
        self._run(lambda: self._client.upsert(self._notes, notes, wait=True), self._limits.write_s)

    def published(self, since: int) -> list[Removed]:
        found = self._run(lambda: self._all_notes(since), self._limits.write_s)
        return [
            Removed(note["id"], Owner(note["tenant"], note["user"]), note["at"]) for note in found
        ]

    def verify(self) -> None:
        found = self._run(self._meta, self._limits.write_s)["generation"]
        if found != self._generation:
            raise StoreReplacedError(f"The collection {self._collection} was made anew.")

    def search(
        self,
        owner: Owner,
        vector: NDArray[np.float32],
        limit: int,
        exclude: Collection[str] = (),
    ) -> list[VectorHit]:
        from qdrant_client import models

        quantization = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        found = self._run(
            lambda: self._client.query_points(
                self._collection,
                query=vector.tolist(),
                query_filter=_owned_by(owner, exclude),
                search_params=models.SearchParams(quantization=quantization),
                limit=limit,
                with_payload=["id"],
            ),
            self._limits.read_s,
        )
        return [VectorHit(_payload(point)["id"], point.score) for point in found.points]

    def fetch(self, owner: Owner, ids: Collection[str]) -> list[VectorPoint]:
        if not ids:
            return []
        found = self._run(
            lambda: self._client.retrieve(
                self._collection,
                [point_id(id_) for id_ in ids],
                with_payload=True,
                with_vectors=True,
            ),
            self._limits.read_s,
        )
        key = owner_key(owner)
        return [
            VectorPoint(
                payload["id"], owner, np.asarray(point.vector, np.float32), payload["record"]
            )
            for point in found
            if (payload := _payload(point))["owner"] == key
        ]

    def delete(self, ids: Collection[str]) -> None:
        if ids:
            points: list[Any] = [point_id(id_) for id_ in ids]
            self._run(
                lambda: self._client.delete(self._collection, points, wait=True),
                self._limits.write_s,
            )

    def count(self, owner: Owner | None = None) -> int:
        wanted = None if owner is None else _owned_by(owner, ())
        counted = self._run(
            lambda: self._client.count(self._collection, count_filter=wanted, exact=True),
            self._limits.read_s,
        )
        return int(counted.count)

    def flush(self) -> None:
        """Nothing: every write waits until the server has it."""

    def close(self) -> None:
        # What hangs, or is closed already, has nothing left to close.
        with contextlib.suppress(StoreUnavailableError):
            self._loop.run(self._client.close(), self._limits.read_s)
        self._loop.close()

    async def _all_notes(self, since: int) -> list[dict[str, Any]]:
        from qdrant_client import models

        later = models.FieldCondition(key="at", range=models.Range(gte=since))
        notes: list[dict[str, Any]] = []
        offset: Any = None
        while True:
            found, offset = await self._client.scroll(
                self._notes, models.Filter(must=[later]), limit=PAGE, offset=offset
            )
            notes += map(_payload, found)
            if offset is None:
                return notes

    async def _prepare(self, anew: bool) -> str:
        """Makes the collection where there is none; its generation."""
        if anew:
            await self._client.delete_collection(self._collection)
        if not await self._client.collection_exists(self._collection):
            await self._create()
        if not await self._client.collection_exists(self._notes):
            await self._create_notes()
        meta = await self._meta()
        found = (meta.get("embedding"), meta.get("dimension"))
        check_model(
            f"{self.url} ({self._collection})", found, (self._embedding_id, self._dimension)
        )
        return str(meta["generation"])

    async def _create(self) -> None:
        from qdrant_client import models

        meta = {
            "embedding": self._embedding_id,
            "dimension": self._dimension,
            "generation": uuid.uuid4().hex,
        }
        codes = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
        await self._made(
            self._collection,
            {
                "owner": models.KeywordIndexParams(
                    type=models.KeywordIndexType.KEYWORD, is_tenant=True
                )
            },
            vectors_config=models.VectorParams(size=self._dimension, distance=models.Distance.DOT),
            # A graph an owner instead of one over all: every search is one owner's.
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            quantization_config=models.ScalarQuantization(scalar=codes),
            metadata=meta,
        )

    async def _create_notes(self) -> None:
        from qdrant_client import models

        await self._made(self._notes, {"at": models.PayloadSchemaType.INTEGER}, vectors_config={})

    async def _made(self, name: str, indexes: dict[str, Any], **how: Any) -> None:
        try:
            await self._client.create_collection(name, **how)
        except Exception:
            # Another gateway may have made it in the meantime.
            if not await self._client.collection_exists(name):
                raise
            return
        for field, kind in indexes.items():
            await self._client.create_payload_index(name, field, kind)

    async def _meta(self) -> dict[str, Any]:
        meta = (await self._client.get_collection(self._collection)).config.metadata
        if not meta or "generation" not in meta:
            raise StoreError(
                f"The collection {self._collection} of {self.url} was not made by kiki, or its"
                " server is older than Qdrant 1.16.",
                fix="Name another with qdrant_collection, or upgrade the server.",
            )
        return dict(meta)

    def _run(self, call: Callable[[], Coroutine[Any, Any, Result]], seconds: float) -> Result:
        """Every call may be repeated, so one that fails in passing is tried once more."""

        async def twice() -> Result:
            try:
                return await call()
            except Exception as error:
                if not isinstance(named_error(self.url, error), StoreUnavailableError):
                    raise
            return await call()

        try:
            return self._loop.run(twice(), seconds)
        except Exception as error:
            named = named_error(self.url, error)
            if named is error:
                raise
            raise named from error


def _connect(
    url: str, grpc_port: int | None, api_key: str | None, limits: Limits
) -> AsyncQdrantClient:
    from qdrant_client import AsyncQdrantClient

    return AsyncQdrantClient(
        location=url,
        grpc_port=grpc_port or 6334,
        prefer_grpc=grpc_port is not None,
        api_key=api_key,
        timeout=math.ceil(limits.write_s),
        check_compatibility=False,
    )


def _payload(point: Any) -> dict[str, Any]:
    return point.payload or {}


def _owned_by(owner: Owner, exclude: Collection[str]) -> Filter:
    from qdrant_client import models

    owned = models.FieldCondition(key="owner", match=models.MatchValue(value=owner_key(owner)))
    if not exclude:
        return models.Filter(must=[owned])
    excluded = models.HasIdCondition(has_id=[point_id(id_) for id_ in exclude])
    return models.Filter(must=[owned], must_not=[excluded])
