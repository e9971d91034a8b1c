"""API keys: what a key is, how its secret is made and recognised. Only hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from kiki.errors import SettingsError

Scope = Literal["chat", "route", "memory", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("chat", "route", "memory")

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_PREFIX = "kiki_"
_SECRET_BYTES = 32


class Key(BaseModel):
    """One key. ``tenant`` is whose memory it opens: the key's own name, where none is given.

    Limits are per minute (requests, tokens) and at a time (concurrent); None takes the settings'.
    ``previous_sha256`` is valid until ``previous_until``: it was rotated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    sha256: Digest = Field(repr=False)
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    tenant: Name = Field(default_factory=lambda fields: str(fields.get("name", "")))
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    previous_sha256: Digest | None = Field(None, repr=False)
    previous_until: AwareDatetime | None = None
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    concurrent: int | None = Field(None, ge=1)

    def opened_by(self, secret: str, now: datetime) -> bool:
        """Whether the secret is this key's; takes as long for a wrong one as for the right one."""
        digest = digest_of(secret)
        current = hmac.compare_digest(digest, self.sha256)
        previous = hmac.compare_digest(digest, self.previous_sha256 or NOBODY.sha256)
        in_time = self.previous_until is not None and now < self.previous_until
        return current or (previous and in_time)

    def ended(self, now: datetime) -> str | None:
        """Why the key is no longer valid, None while it is."""
        if self.revoked is not None:
            return "was revoked"
        if self.expires is not None and now >= self.expires:
            return "has expired"
        return None


def new_secret(name: str) -> str:
    """A secret of 256 random bits. It names its key, so that one key alone has to be compared."""
    return f"{_PREFIX}{name}_{secrets.token_hex(_SECRET_BYTES)}"


def name_in(secret: str) -> str:
    """The name of the key that the secret claims to be."""
    return secret.removeprefix(_PREFIX).rpartition("_")[0]


def digest_of(secret: str) -> str:
    """The hash that is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


NOBODY = Key(name="nobody", sha256=digest_of(secrets.token_hex(_SECRET_BYTES)), scopes=())
"""No secret opens it: what an unknown name is compared with."""


def key_in(text: str) -> Key:
    """A key as the environment holds it: ``NAME:SHA256``, or ``NAME:SHA256:chat+route``.

    Raises SettingsError, without the text: it may be a secret that was put there by mistake.
    """
    name, _, rest = text.partition(":")
    digest, _, scopes = rest.partition(":")
    try:
        return Key.model_validate(
            {"name": name, "sha256": digest, "scopes": scopes.split("+") if scopes else None}
            if scopes
            else {"name": name, "sha256": digest}
        )
    except ValueError as error:
        raise SettingsError(
            "An entry of api_keys is not NAME:SHA256 or NAME:SHA256:SCOPE+SCOPE, with the scopes "
            f"{', '.join(SCOPES)}.",
            fix="kiki keys create NAME --environment prints one.",
        ) from error


def line_of(key: Key) -> str:
    """The key as ``key_in`` reads it; it can't hold limits, an expiry or another tenant."""
    return f"{key.name}:{key.sha256}:{'+'.join(key.scopes)}"
