"""Who may call a gateway without keys: programs on this machine, and no web page.

A page in a browser on this machine reaches loopback too. It is told apart by ``Origin``; one that
had its own name point at 127.0.0.1 (DNS rebinding), by ``Host``. A proxy on this machine would
make everyone local, so that a request it passes on, which names its sender, is none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from kiki.errors import ForbiddenError

_PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_MAKE_A_KEY = "Make a key with kiki keys create NAME, and send it."


def check_local(
    client: str | None, headers: Mapping[str, str], origins: Collection[str] = ()
) -> None:
    """Raises ForbiddenError unless a program on this machine calls, or a page of ``origins``.

    ``client`` is the address that the connection came from; names of headers are lower case.
    """
    if client is None or not is_loopback(client):
        raise ForbiddenError(
            "This gateway has no API keys, so it answers this machine alone.", fix=_MAKE_A_KEY
        )
    if passed_on := next((name for name in _PASSED_ON if name in headers), None):
        raise ForbiddenError(
            f"The request came through a proxy ({passed_on}), and this gateway has no API keys.",
            fix=_MAKE_A_KEY,
        )
    host = headers.get("host", "")
    if not is_loopback(host_name(host)):
        raise ForbiddenError(
            "The Host header is not a name of this machine's loopback.",
            fix="Call localhost or 127.0.0.1, or make a key with kiki keys create NAME.",
        )
    origin = headers.get("origin")
    foreign = origin is not None and origin not in origins and origin != f"http://{host}"
    if foreign or (origin is None and headers.get("sec-fetch-site") == "cross-site"):
        raise ForbiddenError(
            "A web page of another origin may not call this gateway.",
            fix="Name its origin in cors_origins, if it is yours.",
        )


@lru_cache(maxsize=256)
def host_name(host: str) -> str:
    """A Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a name or an address can only be this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
