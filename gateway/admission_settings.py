"""The settings of how much callers may ask for, and how long it may take."""

from __future__ import annotations

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings


class AdmissionSettings(BaseSettings):
    """What is beyond these is refused, with the reason and when to come back."""

    queue_limit: int | None = Field(
        None,
        ge=0,
        description="Requests that may wait for the engine; unset is 16 for each of its slots.",
    )
    queue_ahead: int | None = Field(
        None,
        ge=0,
        description="Rows that the engine is given beyond its slots, so that it can put those of "
        "one mix together; unset is one for each slot.",
    )
    key_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests a minute of a key that has no limit of its own."
    )
    key_tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a minute of a key that has no limit of its own."
    )
    key_concurrent: int | None = Field(
        None, ge=1, description="Requests at a time of a key that has no limit of its own."
    )
    request_timeout: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="Seconds that a request may take; x-request-timeout asks for fewer.",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds that running requests may take to finish once the gateway is told "
        "to stop.",
    )
    max_body: ByteSize = Field(
        ByteSize(16 * 2**20),
        description="Bytes of a request's body, as 16MiB; an import of memory has no limit.",
    )
    max_messages: int = Field(2048, ge=1, description="Messages of a request.")
    max_tools: int = Field(128, ge=0, description="Tools of a request.")
    max_schema_depth: int = Field(
        32, ge=1, le=200, description="Levels of objects and lists that a JSON schema may have."
    )
