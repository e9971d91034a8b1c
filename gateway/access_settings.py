"""The settings of who may call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode


class AccessSettings(BaseSettings):
    """Keys, and what a gateway without keys does."""

    keys_file: Path | None = Field(
        None,
        description="File of the API keys, written by kiki keys and read again when it changes; "
        "unset is keys.toml in data_dir. Once it exists, every caller needs a key.",
    )
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="More API keys, as NAME:SHA256:SCOPE+SCOPE, comma-separated in the "
        "environment; kiki keys create NAME --environment prints one.",
    )
    api_key: SecretStr | None = Field(
        None, description="The key that kiki's own commands send to a gateway."
    )
    allow_remote: bool = Field(
        False,
        description="Answer everyone without a key, where there are no keys: for a gateway behind "
        "something that checks who calls. They may read the memory of any user.",
    )
    metrics_public: bool = Field(
        False, description="Give /metrics without a key, also where callers need one."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose web pages may call, as https://chat.example.org, "
        "comma-separated in the environment; unset is none.",
    )

    @field_validator("keys_file")
    @classmethod
    def _expand_keys_file(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_named(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin.count("/") != 2 or not origin.startswith(("http://", "https://")):
                raise ValueError("an origin is as https://chat.example.org, without a path or *")
        return origins
