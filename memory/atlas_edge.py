"""Atlas in this process: Qdrant's engine on one folder."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreError, StoreUnavailableError
from memory.atlas import REBUILD, Removed, VectorHit, VectorPoint, check_model, owner_key, point_id
from memory.episode import Owner

if TYPE_CHECKING:
    from qdrant_edge import EdgeConfig, EdgeShard, Filter

logger = logging.getLogger("kiki.memory")

# A store of another format is made anew from the journal, which needs no model.
_FORMAT = 3
# So many times the hits asked for are found by the 2-bit codes, then scored by the vectors.
OVERSAMPLING = 8.0
# The engine writes through sparse mapped files, and a page that finds no block on the disk ends
# the process (SIGBUS): it is not let near that.
ROOM_BYTES = 64 << 20


class EdgeAtlas:
    """Qdrant's engine in this process, one folder.

    A search scans 2-bit codes (TurboQuant, kept with every write) under the owner's payload
    filter, then scores the best `OVERSAMPLING` x limit by the float16 vectors. There is no HNSW:
    only ``optimize()`` builds it, which blocks for minutes, and the scan meets the bounds without
    (docs/adr/0016-a-quantised-scan-in-atlas.md).
    """

    def __init__(self, folder: Path, *, embedding_id: str, dimension: int) -> None:
        self._folder = folder
        self._model = (embedding_id, dimension)
        self._meta = folder / "atlas.json"
        self._opening = folder / "opening"
        self._write_lock = threading.Lock()
        if self._opening.exists():
            # A damaged file can abort the process inside load(); the journal makes a new store.
            logger.warning("%s ended the process that last opened it: made anew", folder)
            self._meta.unlink(missing_ok=True)
        if self._meta.exists():
            self._check()
        if self._meta.exists():
            self._load()
        else:
            self._create()

    @property
    def generation(self) -> str:
        return self._generation

    @property
    def shared(self) -> bool:
        return False

    def _create(self) -> None:
        import qdrant_edge as qdrant

        # Without its meta file the folder holds a creation that was interrupted.
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._named_errors():
            (self._folder / "shard").mkdir(mode=0o700, parents=True)
            self._need_room()
            shard = qdrant.EdgeShard.create(str(self._folder / "shard"), self._config())
            # One key for both: two conditions cost a scan of 100,000 points six times as much.
            index = qdrant.KeywordIndexParams(is_tenant=True)
            shard.update(qdrant.UpdateOperation.create_field_index("owner", index))
            shard.flush()
        self._shard: EdgeShard = shard
        self._generation = uuid.uuid4().hex
        meta = {
            "format": _FORMAT,
            "embedding": self._model[0],
            "dimension": self._model[1],
            "generation": self._generation,
        }
        draft = self._meta.with_suffix(".draft")
        draft.write_text(json.dumps(meta))
        draft.replace(self._meta)

    def _check(self) -> None:
        try:
            meta = json.loads(self._meta.read_text())
            self._generation = str(meta["generation"])
            found = (meta["embedding"], meta["dimension"])
            format_ = meta.get("format", 1)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self._meta} is damaged ({error!r}).", fix=REBUILD) from error
        check_model(str(self._folder), found, self._model)
        if format_ != _FORMAT:
            logger.info("%s has format %s: made anew from the journal", self._folder, format_)
            self._meta.unlink()

    def _load(self) -> None:
        import qdrant_edge as qdrant

        self._need_room()
        self._opening.touch()
        try:
            with self._named_errors(fix=REBUILD):
                self._shard = qdrant.EdgeShard.load(str(self._folder / "shard"), self._config())
        finally:
            self._opening.unlink()

    def _config(self) -> EdgeConfig:
        import qdrant_edge as qdrant

        vectors = qdrant.EdgeVectorParams(
            size=self._model[1],
            distance=qdrant.Distance.Dot,
            datatype=qdrant.VectorStorageDatatype.Float16,
            quantization_config=qdrant.TurboQuantQuantizationConfig(
                bits=qdrant.TurboQuantBitSize.Bits2, memory=qdrant.Memory.Pinned
            ),
        )
        # There is one segment to scan: more threads would only wait for a core each.
        return qdrant.EdgeConfig(vectors=vectors, max_search_threads=1)

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        import qdrant_edge as qdrant

        batch = [
            qdrant.Point(
                point_id(point.owner, point.id),
                point.vector.tolist(),
                {"id": point.id, "owner": owner_key(point.owner)},
            )
            for point in points
        ]
        with self._write_lock, self._named_errors():
            self._need_room()
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
            params=qdrant.SearchParams(
                quantization=qdrant.QuantizationSearchParams(
                    rescore=True, oversampling=OVERSAMPLING
                )
            ),
        )
        with self._named_errors():
            found = self._shard.search(request)
        return [VectorHit(point.payload["id"], point.score) for point in found if point.payload]

    def fetch(self, owner: Owner, ids: Collection[str]) -> list[VectorPoint]:
        return []

    def publish(self, removed: Sequence[Removed]) -> None:
        """Nothing: the folder is this process's alone."""

    def published(self, since: int) -> list[Removed]:
        return []

    def verify(self) -> None:
        """Nothing: the folder is this process's alone."""

    def delete(self, removed: Sequence[Removed]) -> None:
        import qdrant_edge as qdrant

        points: list[Any] = [point_id(one.owner, one.id) for one in removed]
        with self._write_lock, self._named_errors():
            self._need_room()
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

    def _need_room(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < ROOM_BYTES:
            raise StoreUnavailableError(
                f"The disk of {self._folder} has {free >> 20} MB left;"
                f" it is written to from {ROOM_BYTES >> 20} MB on.",
                fix="Free some space.",
            )

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


def _owned_by(owner: Owner, exclude: Collection[str]) -> Filter:
    import qdrant_edge as qdrant

    must: list[Any] = [qdrant.FieldCondition("owner", match=qdrant.MatchValue(owner_key(owner)))]
    if not exclude:
        return qdrant.Filter(must=must)
    excluded: set[Any] = {point_id(owner, id_) for id_ in exclude}
    return qdrant.Filter(must=must, must_not=[qdrant.HasIdCondition(excluded)])
