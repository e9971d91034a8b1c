"""Where traces go."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class TracingSettings(BaseSettings):
    """OpenTelemetry; off by default."""

    otel_endpoint: str | None = Field(
        None,
        description="Address that takes OTLP traces over HTTP, such as "
        "http://localhost:4318/v1/traces; unset, none are made. Needs the extra otel.",
    )

    @field_validator("otel_endpoint")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("is no http address, such as http://localhost:4318/v1/traces")
        return value
