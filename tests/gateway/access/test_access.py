"""Who may call the endpoints, on the real gateway in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway.access.key_file import change_keys
from gateway.access.keyring import Keyring
from gateway.access.keys import SCOPES, Key, digest_of, new_secret
from gateway.access.scopes import BY_PATH, needed
from gateway.app import create_app

HELLO: dict[str, object] = {
    "model": "base",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 2,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def key(file) -> Callable[..., str]:
    """Makes a key; gives its secret."""

    def make(name: str = "anna", **fields) -> str:
        secret = new_secret(name)

        def put(keys: dict[str, Key]) -> Key:
            keys[name] = Key(name=name, sha256=digest_of(secret), **fields)
            return keys[name]

        change_keys(file, put)
        return secret

    return make


@pytest.fixture
def caller(services, file) -> Callable[..., httpx.AsyncClient]:
    """A client of a gateway with the keys of the file."""

    def make(secret: str | None = None, client: str = "10.1.2.3", **settings) -> httpx.AsyncClient:
        changed = replace(
            services,
            keyring=Keyring(file),
            settings=services.settings.model_copy(update=settings),
        )
        app = create_app(changed)
        transport = httpx.ASGITransport(app, client=(client, 1), raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return httpx.AsyncClient(
            transport=transport, base_url="http://kiki.example", headers=headers, timeout=60
        )

    return make


async def test_without_a_key_or_with_a_wrong_one_the_answer_is_401_as_openais(key, caller):
    key()
    for wrong in (None, "sk-123", new_secret("anna"), new_secret("nobody")):
        answer = await caller(wrong).post("/v1/chat/completions", json=HELLO)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["x-request-id"]
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert wrong is None or wrong not in answer.text


async def test_a_key_does_what_its_scopes_say_and_no_more(key, caller):
    allowed: dict[str, list[tuple[str, str, dict[str, object] | None]]] = {
        "chat": [("POST", "/v1/chat/completions", HELLO)],
        "route": [("POST", "/v1/route", {"query": "hi"})],
        "memory": [("GET", "/v1/memory", None), ("GET", "/v1/memory/export", None)],
        "metrics": [("GET", "/metrics", None)],
        "admin": [("POST", "/v1/adapters/refresh", None)],
    }
    assert allowed.keys() == set(SCOPES)
    for scope in SCOPES:
        http = caller(key(scope, scopes=(scope,)))
        assert (await http.get("/v1/models")).status_code == 200
        for needs, requests in allowed.items():
            may = needs == scope or (scope, needs) == ("admin", "metrics")
            for method, path, body in requests:
                answer = await http.request(method, path, json=body)
                assert answer.status_code == (200 if may else 403), (scope, path, answer.text)
                if not may:
                    assert answer.json()["error"]["code"] == "insufficient_permissions"
                    assert needs in answer.json()["error"]["message"]


async def test_metrics_can_be_opened_alone(key, caller):
    key()
    assert (await caller(None).get("/metrics")).status_code == 401
    assert (await caller(None, metrics_public=True).get("/metrics")).status_code == 200
    assert (await caller(None, metrics_public=True).get("/health")).status_code == 401


def test_every_path_there_is_has_its_scope_named(services):
    for path in create_app(services).openapi()["paths"]:
        parts = path.split("/")
        named = ["/".join(parts[:end]) for end in range(2, len(parts) + 1)]
        assert any(part in BY_PATH for part in named), path
    assert needed("/v1/memory/status") == "memory"
    assert needed("/v1/memoryx") == "any"
    assert needed("/v1/adapters/refresh/") == "admin"


async def test_a_tenant_never_sees_anothers_memory_conversations_or_kept_replies(key, caller):
    anna, bob = caller(key("anna")), caller(key("bob"))
    episode = {"id": "one", "text": "My cat is called Minka.", "user": "kim"}
    assert (await anna.post("/v1/memory", json=episode)).json()["data"][0]["new"] is True
    for user in ("kim", None):
        params = {"user": user} if user else {}
        assert (await bob.get("/v1/memory", params=params)).json()["data"] == []
        assert (await bob.get("/v1/memory/one", params=params)).status_code == 404
        assert (await bob.delete("/v1/memory/one", params=params)).status_code == 404
    for path in ("/v1/memory/export", "/v1/memory/status"):
        told = await bob.get(path, params={"scope": "tenant"})
        assert "Minka" not in told.text
    gone = {"scope": "tenant", "all": "true", "confirm": "delete"}
    assert (await bob.delete("/v1/memory", params=gone)).json()["episodes"] == 0
    assert (await anna.get("/v1/memory", params={"user": "kim"})).json()["data"][0]["id"] == "one"

    once = {"idempotency-key": "k1"}
    body = HELLO | {"user": "kim"}
    first = (await anna.post("/v1/chat/completions", json=body, headers=once)).json()
    other = (await bob.post("/v1/chat/completions", json=body, headers=once)).json()
    again = (await anna.post("/v1/chat/completions", json=body, headers=once)).json()
    assert first["id"] == again["id"] != other["id"]


async def test_two_keys_of_one_tenant_share_its_memory(key, caller):
    phone, desk = caller(key("phone", tenant="eva")), caller(key("desk", tenant="eva"))
    await phone.post("/v1/memory", json={"id": "two", "text": "I live in Graz."})
    assert (await desk.get("/v1/memory/two")).status_code == 200


async def test_without_keys_a_program_here_may_call_and_nobody_else(caller):
    local = caller(None, client="127.0.0.1")
    assert (await local.get("/v1/models")).status_code == 403  # its Host is kiki.example
    host = {"host": "localhost:8000"}
    assert (await local.get("/v1/models", headers=host)).status_code == 200
    refused = await local.get("/v1/models", headers=host | {"origin": "https://evil.example"})
    assert refused.status_code == 403
    assert (await caller(None).get("/v1/models", headers=host)).status_code == 403
    assert (await caller(None, allow_remote=True).get("/v1/models")).status_code == 200


async def test_pages_of_other_origins_are_let_in_by_name(key, caller):
    page = "https://chat.example.org"
    asks = {
        "origin": page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    secret = key()
    closed = await caller(secret).options("/v1/chat/completions", headers=asks)
    assert "access-control-allow-origin" not in closed.headers
    opened = caller(secret, cors_origins=(page,))
    before = await opened.options("/v1/chat/completions", headers=asks)
    assert before.headers["access-control-allow-origin"] == page
    after = await opened.get("/v1/models", headers={"origin": page})
    assert after.headers["access-control-allow-origin"] == page
    evil = await opened.get("/v1/models", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in evil.headers
