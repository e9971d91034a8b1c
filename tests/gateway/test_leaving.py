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
