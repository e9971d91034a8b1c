"""Whose memory a request is about."""

from __future__ import annotations

from memory import Owner

LOCAL_TENANT = "local"
"""There are no API keys: everyone who reaches the port is one tenant, and ``user`` divides it."""


def owner_of(user: str | None) -> Owner:
    return Owner(LOCAL_TENANT, user or "")
