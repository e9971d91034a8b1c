"""The settings of the memory's stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from memory.stores import Stores

_NEO4J_SCHEMES = ("neo4j://", "neo4j+s://", "neo4j+ssc://", "bolt://", "bolt+s://", "bolt+ssc://")


class StoreSettings(BaseSettings):
    """Embedded stores lie in ``data_dir``; servers are named here."""

    vector_store: Literal["embedded", "qdrant"] = Field(
        "embedded", description="Where the memory's vectors are: in data_dir, or on a Qdrant."
    )
    qdrant_url: str = Field(
        "http://127.0.0.1:6333",
        pattern="^https?://",
        description="qdrant: the server's REST address. Version 1.16 or newer.",
    )
    qdrant_grpc_port: int | None = Field(
        None, ge=1, le=65535, description="qdrant: set, the calls go by gRPC to this port."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="qdrant: its API key.")
    qdrant_collection: str = Field(
        "kiki",
        pattern=r"^[\w.-]{1,200}$",
        description="qdrant: the collection; gateways that name the same share one memory.",
    )
    graph_store: Literal["embedded", "neo4j"] = Field(
        "embedded", description="Where the memory's graph is: in data_dir, or on a Neo4j."
    )
    neo4j_uri: str = Field(
        "neo4j://127.0.0.1:7687",
        description="neo4j: the server's address; neo4j+s:// and bolt+s:// are encrypted.",
    )
    neo4j_database: str | None = Field(
        None, description="neo4j: the database, kiki's alone; unset is the user's home database."
    )
    neo4j_user: str = Field("neo4j", description="neo4j: the user.")
    neo4j_password: SecretStr | None = Field(None, description="neo4j: the password.")
    store_read_ms: int = Field(
        500, ge=10, le=60_000, description="Milliseconds that recall waits for a store's server."
    )
    store_write_ms: int = Field(
        10_000,
        ge=100,
        le=600_000,
        description="Milliseconds that a batch of writes waits for a store's server.",
    )

    @model_validator(mode="after")
    def _addresses_are_neo4js(self) -> StoreSettings:
        if not self.neo4j_uri.startswith(_NEO4J_SCHEMES):
            raise ValueError(
                f"neo4j_uri = {self.neo4j_uri!r} begins with none of {', '.join(_NEO4J_SCHEMES)}"
            )
        return self

    def stores(self) -> Stores:
        """The stores that these settings name, not opened."""
        from memory.remote import Limits
        from memory.stores import Stores

        return Stores(
            vector=self.vector_store,
            qdrant_url=self.qdrant_url,
            qdrant_collection=self.qdrant_collection,
            qdrant_grpc_port=self.qdrant_grpc_port,
            qdrant_api_key=_secret(self.qdrant_api_key),
            graph=self.graph_store,
            neo4j_uri=self.neo4j_uri,
            neo4j_database=self.neo4j_database,
            neo4j_user=self.neo4j_user,
            neo4j_password=_secret(self.neo4j_password) or "",
            limits=Limits(self.store_read_ms / 1000, self.store_write_ms / 1000),
        )


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
