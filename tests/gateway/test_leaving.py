"""A client that leaves stops its generation and frees what it held."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
import uvicorn

from gateway.app import create_app
from tests.waiting import until

PANEL = {"plan": "panel", "adapters": {"shell": 1.0, "python": 1.0, "sql": 1.0}}


@pytest.fixture(scope="module")
async def address(services):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(services), log_config=None, lifespan="off"))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await running


async def busy_slots(services) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        slots = (await client.get(services.engine.inner.url + "/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


async def wait_for_slots(services, wanted) -> None:
    for _ in range(600):
        if wanted(await busy_slots(services)):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the slots did not get there in 30 s")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kiki", [{}, PANEL], ids=["single", "panel"])
async def test_leaving_frees_the_slots(services, address, stream, kiki):
    body = {
        "model": "micro-kiki" if kiki else "base",
        "messages": [{"role": "user", "content": "Write a very long story about the sea."}],
        "max_tokens": 1500,
        "temperature": 1,
        "stream": stream,
        "kiki": kiki | {"memory": False},
    }
    async with httpx.AsyncClient(base_url=address, timeout=60, trust_env=False) as client:
        request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await wait_for_slots(services, lambda busy: busy > 0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await wait_for_slots(services, lambda busy: busy == 0)


STORY = "Write a very long story about the sea."
ENDPOINTS: dict[str, dict[str, object]] = {
    "/v1/completions": {"prompt": ["Once upon a time", "It was a dark night"]},
    "/v1/responses": {"input": STORY},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", list(ENDPOINTS))
async def test_leaving_frees_the_slots_on_every_endpoint(services, address, stream, path):
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    body = {"model": "base", limit: 1500, "temperature": 1, "stream": stream, **ENDPOINTS[path]}
    async with httpx.AsyncClient(base_url=address, timeout=60, trust_env=False) as client:
        request = asyncio.create_task(client.post(path, json=body))
        await wait_for_slots(services, lambda busy: busy > 0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await wait_for_slots(services, lambda busy: busy == 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_written_before_a_client_left_is_kept_as_aborted(services, address, stream):
    user = f"leaver-{stream}"
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": STORY}],
        "max_tokens": 1500,
        "temperature": 1,
        "user": user,
        "stream": stream,
    }

    async def episodes(client: httpx.AsyncClient) -> list[dict[str, str]]:
        found: list[dict[str, str]] = (
            await client.get("/v1/memory", params={"user": user})
        ).json()["data"]
        return found

    async with httpx.AsyncClient(base_url=address, timeout=60, trust_env=False) as client:
        if stream:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.aiter_lines()
                for _ in range(12):
                    await anext(lines)
        else:
            request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await wait_for_slots(services, lambda busy: busy > 0)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await wait_for_slots(services, lambda busy: busy == 0)
        for _ in range(200):
            if kept := await episodes(client):
                break
            await asyncio.sleep(0.05)
    (episode,) = kept
    assert episode["status"] == "aborted"
    assert episode["text"] == STORY
    assert episode["answer"] or not stream


async def test_a_key_whose_client_left_can_be_used_again(services, address):
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "Write a long story."}],
        "max_tokens": 1500,
        "stream": True,
    }
    headers = {"Idempotency-Key": "left-behind"}
    async with httpx.AsyncClient(
        base_url=address, timeout=60, trust_env=False, headers=headers
    ) as client:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            await anext(response.aiter_lines())
        await until(lambda: not services.once.busy)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            assert "x-kiki-replayed" not in response.headers
