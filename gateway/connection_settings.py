"""The settings of connections to callers."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class ConnectionSettings(BaseSettings):
    """What a caller's connection may take."""

    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that answer; more than one needs vllm_urls. The first owns the "
        "memory.",
    )
    request_arrival_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds in which a request must have arrived, head and body; slower ones get "
        "408. A connection without a request is closed after that.",
    )
    reading_stall_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds that an answer may wait for its caller to read on; then the "
        "connection is closed and the generation stops.",
    )
