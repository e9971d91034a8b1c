"""Which scope a path needs. A path that isn't here needs a key, of any scope."""

from __future__ import annotations

from typing import Literal

from gateway.access.keys import Key, Scope

Need = Scope | Literal["nothing", "any"]

BY_PATH: dict[str, Need] = {
    "/v1/chat": "chat",
    "/v1/completions": "chat",
    "/v1/responses": "chat",
    "/v1/embeddings": "chat",
    "/tokenize": "chat",
    "/detokenize": "chat",
    "/v1/route": "route",
    "/v1/memory": "memory",
    "/v1/adapters/refresh": "admin",
    "/v1/admin": "admin",
    "/metrics": "metrics",
    "/v1/adapters": "any",
    "/v1/models": "any",
    "/health": "any",
    # Nothing of the deployment is said there: a load balancer's questions, the API's description.
    "/health/live": "nothing",
    "/health/ready": "nothing",
    "/docs": "nothing",
    "/redoc": "nothing",
    "/openapi.json": "nothing",
    # Files; what they show comes by calls of their own.
    "/console": "nothing",
}


def needed(path: str) -> Need:
    """The need of the longest of the paths above that this one is, or lies below."""
    while path:
        if need := BY_PATH.get(path):
            return need
        path = path.rpartition("/")[0]
    return "any"


def allows(key: Key, need: Need) -> bool:
    """Whether the key is enough. Who may administer may read the metrics too."""
    if need in ("nothing", "any") or need in key.scopes:
        return True
    return need == "metrics" and "admin" in key.scopes
