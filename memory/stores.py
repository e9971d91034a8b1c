"""Which stores the memory keeps, and how each is opened."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kiki.errors import StoreError
from memory.atlas import VectorStore
from memory.atlas_edge import EdgeAtlas
from memory.remote import Limits
from memory.trace import GraphStore
from memory.trace_sqlite import SqliteTrace


@dataclass(frozen=True, slots=True)
class Stores:
    """Embedded ones lie in the memory's folder; a server's are named by address and secrets."""

    vector: Literal["embedded", "qdrant"] = "embedded"
    qdrant_url: str = ""
    qdrant_collection: str = "kiki"
    qdrant_grpc_port: int | None = None
    qdrant_api_key: str | None = field(default=None, repr=False)
    graph: Literal["embedded", "neo4j"] = "embedded"
    neo4j_uri: str = ""
    neo4j_database: str | None = None
    neo4j_user: str = "neo4j"
    neo4j_password: str = field(default="", repr=False)
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raises `StoreError` when the package of a server's client is not installed."""
        for setting, package, extra in (
            (f"vector_store = {self.vector}", "qdrant_client", "qdrant"),
            (f"graph_store = {self.graph}", "neo4j", "neo4j"),
        ):
            if extra in (self.vector, self.graph) and importlib.util.find_spec(package) is None:
                raise StoreError(
                    f"{setting} needs the package {package}, which is not installed.",
                    fix=f"Run: pip install 'kiki-gateway[{extra}]'",
                )

    def open_vectors(
        self, folder: Path, *, embedding_id: str, dimension: int, anew: bool = False
    ) -> VectorStore:
        """``anew`` empties it first. Raises `StoreError` for a store of another embedding model,
        `StoreUnavailableError` while its server can't be reached."""
        if self.vector == "embedded":
            if anew:
                _remove(folder / "atlas")
            return EdgeAtlas(folder / "atlas", embedding_id=embedding_id, dimension=dimension)
        from memory.atlas_qdrant import QdrantAtlas

        return QdrantAtlas(
            self.qdrant_url,
            embedding_id=embedding_id,
            dimension=dimension,
            collection=self.qdrant_collection,
            grpc_port=self.qdrant_grpc_port,
            api_key=self.qdrant_api_key,
            limits=self.limits,
            anew=anew,
        )

    def open_graph(self, folder: Path, *, anew: bool = False) -> GraphStore:
        """``anew`` empties it first. Raises `StoreUnavailableError` while its server can't be
        reached."""
        if self.graph == "embedded":
            if anew:
                _remove(folder / "trace")
            return SqliteTrace(folder / "trace")
        from memory.trace_neo4j import Neo4jTrace

        return Neo4jTrace(
            self.neo4j_uri,
            user=self.neo4j_user,
            password=self.neo4j_password,
            database=self.neo4j_database,
            limits=self.limits,
            anew=anew,
        )


def _remove(folder: Path) -> None:
    # A folder that stays behind would pass for a store that was made anew.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
