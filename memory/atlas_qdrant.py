"""Atlas on a Qdrant server, which several gateways may share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreReplacedError, StoreUnavailableError
from memory.atlas import Removed, VectorHit, VectorPoint, owner_key, point_id
from memory.episode import Owner
from memory.qdrant_collections import Collections
from memory.qdrant_errors import named_error
from memory.qdrant_filters import gone, owned_by, told_since
from memory.remote import Limits, LoopThread

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

COLLECTION = "kiki"
OVERSAMPLING = 2.0
PAGE = 1000
Result = TypeVar("Result")


class QdrantAtlas:
    """A collection of vectors, which the server indexes by itself, and one of notes on what was
    deleted (`Collections`; Qdrant 1.16).

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
        self._made = Collections(url, collection, embedding_id, dimension)
        self._limits = limits
        self._client = _connect(url, grpc_port, api_key, limits)
        self._loop = LoopThread(f"qdrant {url}")
        try:
            self._generation = self._run(
                lambda: self._made.prepare(self._client, anew=anew), limits.write_s
            )
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

        by_id = {point_id(point.owner, point.id): point for point in points}
        there = self._run(
            lambda: self._client.retrieve(
                self._made.vectors, list(by_id), with_payload=["written"], with_vectors=False
            ),
            self._limits.write_s,
        )
        for one in there:
            if _payload(one)["written"] > by_id[str(one.id)].written:
                del by_id[str(one.id)]
        batch = [
            models.PointStruct(
                id=id_,
                vector=point.vector.tolist(),
                payload={
                    "id": point.id,
                    "owner": owner_key(point.owner),
                    "record": point.record,
                    "written": point.written,
                },
            )
            for id_, point in by_id.items()
        ]
        if batch:
            self._run(
                lambda: self._client.upsert(self._made.vectors, batch, wait=True),
                self._limits.write_s,
            )

    def publish(self, removed: Sequence[Removed]) -> None:
        from qdrant_client import models

        notes = [
            models.PointStruct(
                id=point_id(one.owner, one.id),
                vector={},
                payload={
                    "id": one.id,
                    "tenant": one.owner.tenant,
                    "user": one.owner.user,
                    "until": one.until,
                    "at": one.at,
                },
            )
            for one in removed
        ]
        self._run(
            lambda: self._client.upsert(self._made.notes, notes, wait=True), self._limits.write_s
        )

    def published(self, since: int) -> list[Removed]:
        found = self._run(lambda: self._all_notes(since), self._limits.write_s)
        return [
            Removed(note["id"], Owner(note["tenant"], note["user"]), note["until"], note["at"])
            for note in found
            if "until" in note
        ]

    def verify(self) -> None:
        meta = self._run(lambda: self._made.meta(self._client), self._limits.write_s)
        if meta["generation"] != self._generation:
            raise StoreReplacedError(f"The collection {self._made.vectors} was made anew.")

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
                self._made.vectors,
                query=vector.tolist(),
                query_filter=owned_by(owner, exclude),
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
                self._made.vectors,
                [point_id(owner, id_) for id_ in ids],
                with_payload=True,
                with_vectors=True,
            ),
            self._limits.read_s,
        )
        key = owner_key(owner)
        return [
            VectorPoint(
                payload["id"],
                owner,
                np.asarray(point.vector, np.float32),
                payload["record"],
                payload["written"],
            )
            for point in found
            if (payload := _payload(point))["owner"] == key
        ]

    def delete(self, removed: Sequence[Removed]) -> None:
        from qdrant_client import models

        if removed:
            selected = models.FilterSelector(filter=gone(removed))
            self._run(
                lambda: self._client.delete(self._made.vectors, selected, wait=True),
                self._limits.write_s,
            )

    def count(self, owner: Owner | None = None) -> int:
        wanted = None if owner is None else owned_by(owner)
        counted = self._run(
            lambda: self._client.count(self._made.vectors, count_filter=wanted, exact=True),
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
        notes: list[dict[str, Any]] = []
        offset: Any = None
        while True:
            found, offset = await self._client.scroll(
                self._made.notes, told_since(since), limit=PAGE, offset=offset
            )
            notes += map(_payload, found)
            if offset is None:
                return notes

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
