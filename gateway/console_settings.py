"""The setting of the console."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class ConsoleSettings(BaseSettings):
    """Whether the console's page is served. What it shows needs the same keys as any call."""

    console: bool | None = Field(
        None,
        description="Serve the page /console; unset serves it where host is a loopback address.",
    )
