"""Whose memory a request is about."""

from __future__ import annotations

from gateway.access.visit import LOCAL_TENANT, current_visit
from gateway.api.fields import clean_text
from memory import Owner


def owner_of(user: str | None, param: str = "user") -> Owner:
    """The tenant is that of the key in use, and ``user`` divides it: no request can name another
    tenant. Raises RequestError for a name that can't be stored."""
    visit = current_visit.get()
    tenant = visit.caller.tenant if visit else LOCAL_TENANT
    return Owner(tenant, clean_text(user or "", param))
