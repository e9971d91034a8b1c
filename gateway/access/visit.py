"""One request, as far as all parts want to know of it: its id, who calls, what it used."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from gateway.access.keys import Key

LOCAL_TENANT = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a key's holder, or whoever may call where no key is needed."""

    tenant: str = LOCAL_TENANT
    key: Key | None = None


NO_KEY = Caller()


@dataclass(slots=True)
class Visit:
    """``tokens`` is what engines counted for it; ``began`` says that it had a place in one.

    ``traceparent`` is the caller's header of that name (W3C Trace Context).
    """

    request_id: str
    caller: Caller = NO_KEY
    tokens: int = 0
    began: bool = False
    traceparent: str | None = None


current_visit: ContextVar[Visit | None] = ContextVar("current_visit", default=None)
"""None outside of a request: what the memory does at night, ``kiki memory`` on a folder."""


def spend(tokens: int) -> None:
    """Count tokens for the request that runs, if one does."""
    if visit := current_visit.get():
        visit.tokens += tokens
