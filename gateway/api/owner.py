"""Whose memory a request is about."""

from __future__ import annotations

from gateway.api.fields import clean_text
from memory import Owner

LOCAL_TENANT = "local"
"""There are no API keys: everyone who reaches the port is one tenant, and ``user`` divides it."""


def owner_of(user: str | None, param: str = "user") -> Owner:
    """Raises RequestError for a name that can't be stored."""
    return Owner(LOCAL_TENANT, clean_text(user or "", param))
