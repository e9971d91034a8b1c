"""The two collections on a Qdrant server: how they are made, and known again."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kiki.errors import StoreError
from memory.atlas import REBUILD, check_model

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

# A collection of another format is refused: other gateways may still write into it.
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Collections:
    """``vectors`` holds the episodes' (float32, int8 codes in memory, an HNSW graph an owner),
    ``notes`` what was deleted, which outlives vectors that are made anew.

    The embedding model, the format and the generation stand in the metadata of ``vectors``.
    """

    url: str
    vectors: str
    embedding_id: str
    dimension: int

    @property
    def notes(self) -> str:
        return f"{self.vectors}-removed"

    async def prepare(self, client: AsyncQdrantClient, *, anew: bool) -> str:
        """Makes what is not there; the generation. Raises `StoreError` for a collection of another
        model or format."""
        if anew:
            await client.delete_collection(self.vectors)
        if not await client.collection_exists(self.vectors):
            await self._make_vectors(client)
        if not await client.collection_exists(self.notes):
            await self._make_notes(client)
        meta = await self.meta(client)
        name = f"{self.url} ({self.vectors})"
        found = (meta.get("embedding"), meta.get("dimension"))
        check_model(name, found, (self.embedding_id, self.dimension))
        if meta.get("format", 1) != _FORMAT:
            raise StoreError(
                f"The store {name} has format {meta.get('format', 1)}; this program writes"
                f" {_FORMAT}.",
                fix=f"{REBUILD} All gateways that share it must be of this version.",
            )
        return str(meta["generation"])

    async def meta(self, client: AsyncQdrantClient) -> dict[str, Any]:
        """Raises `StoreError` for a collection that is not kiki's."""
        meta = (await client.get_collection(self.vectors)).config.metadata
        if not meta or "generation" not in meta:
            raise StoreError(
                f"The collection {self.vectors} of {self.url} was not made by kiki, or its"
                " server is older than Qdrant 1.16.",
                fix="Name another with qdrant_collection, or upgrade the server.",
            )
        return dict(meta)

    async def _make_vectors(self, client: AsyncQdrantClient) -> None:
        from qdrant_client import models

        meta = {
            "format": _FORMAT,
            "embedding": self.embedding_id,
            "dimension": self.dimension,
            "generation": uuid.uuid4().hex,
        }
        codes = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
        owner = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await _make(
            client,
            self.vectors,
            {"owner": owner},
            vectors_config=models.VectorParams(size=self.dimension, distance=models.Distance.DOT),
            # A graph an owner instead of one over all: every search is one owner's.
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            quantization_config=models.ScalarQuantization(scalar=codes),
            metadata=meta,
        )

    async def _make_notes(self, client: AsyncQdrantClient) -> None:
        from qdrant_client import models

        indexes = {"at": models.PayloadSchemaType.INTEGER}
        await _make(client, self.notes, indexes, vectors_config={})


async def _make(client: AsyncQdrantClient, name: str, indexes: dict[str, Any], **how: Any) -> None:
    try:
        await client.create_collection(name, **how)
    except Exception:
        # Another gateway may have made it in the meantime.
        if not await client.collection_exists(name):
            raise
        return
    for field, kind in indexes.items():
        await client.create_payload_index(name, field, kind)
