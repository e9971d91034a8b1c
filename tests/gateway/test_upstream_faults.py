"""``kiki serve`` in front of a vLLM server that is killed, hangs, is slow, or answers anything.

The gateway is a process, the servers are reached over sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.bench.running import running_gateway, running_module
from gateway.bench.stub_server import PACED, SETTINGS
from tests.adapters.engines.vllm.scripted import ScriptedVllm
from tests.waiting import until

QUICK = SETTINGS | {
    "vllm_token_timeout": "1",
    "reading_stall_s": "1",
    "antibias": "false",
    "log_level": "error",
}


def ask(stream: bool = False, text: str = "Hello?", **fields: object) -> dict[str, object]:
    body: dict[str, object] = {"model": "base", "max_tokens": 4, "stream": stream}
    return body | {"messages": [{"role": "user", "content": text}], "user": "kim"} | fields


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, trust_env=False)


def circuit(http: httpx.Client) -> str:
    (state,) = http.get("/health").json()["components"]["engine"]["circuits"].values()
    return str(state)


def answers_again(http: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while http.post("/v1/chat/completions", json=ask()).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def stopped_and_started() -> Iterator[tuple[httpx.Client, int]]:
    """A gateway, and the process id of its server, for faults that pass without its end."""
    with (
        running_module("stub_server") as (url, pid),
        running_gateway(QUICK | {"vllm_urls": url}) as gateway,
        client(gateway.url) as http,
    ):
        yield http, pid


def test_a_killed_server_gives_503_opens_its_circuit_and_is_used_again_when_it_is_back():
    with (
        running_module("stub_server") as (url, pid),
        running_gateway(QUICK | {"vllm_urls": url}) as gateway,
        client(gateway.url) as http,
    ):
        assert http.post("/v1/chat/completions", json=ask()).status_code == 200
        os.kill(pid, signal.SIGKILL)
        refused = http.post("/v1/chat/completions", json=ask())
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert circuit(http) in ("open", "half-open")
        assert f'kiki_engine_circuit{{server="{url}"}}' in http.get("/metrics").text
        with running_module("stub_server", str(urlsplit(url).port)):
            answers_again(http)
            assert circuit(http) == "closed"
            assert http.get("/health").json()["components"]["engine"]["ready"]


def test_a_server_that_hangs_fails_its_requests_and_is_used_again_when_it_goes_on(
    stopped_and_started,
):
    http, pid = stopped_and_started
    os.kill(pid, signal.SIGSTOP)
    try:
        failed = http.post("/v1/chat/completions", json=ask())
        assert failed.status_code in (502, 503)
        assert failed.json()["error"]["type"] == "server_error"
        deadline = time.monotonic() + 30
        while circuit(http) == "closed":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert http.post("/v1/chat/completions", json=ask()).status_code == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    answers_again(http)


def test_a_server_that_hangs_in_mid_stream_ends_it_with_an_error_event(stopped_and_started):
    http, pid = stopped_and_started
    answers_again(http)
    lines = []
    try:
        body = ask(stream=True, text=PACED, max_tokens=5000)
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if line:
                    lines.append(line)
                    if len(lines) == 5:
                        os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "error" in json.loads(lines[-1].removeprefix("data: "))
    assert "data: [DONE]" not in lines
    answers_again(http)


@pytest.fixture(scope="module")
async def scripted() -> AsyncIterator[tuple[ScriptedVllm, httpx.AsyncClient]]:
    server = ScriptedVllm()
    await server.start()
    manager = running_gateway(QUICK | {"vllm_urls": server.url, "memory": "false"})
    gateway = await asyncio.to_thread(manager.__enter__)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False) as http:
            yield server, http
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)
        await server.die()


@pytest.fixture
async def server(scripted) -> AsyncIterator[ScriptedVllm]:
    """It is well again after each test, and the gateway has seen it."""
    server, http = scripted
    yield server
    server.raw_chat = server.chat_failure = server.pieces_before_death = None
    server.answering.set()
    for _ in range(300):
        if (await http.post("/v1/chat/completions", json=ask())).status_code == 200:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the gateway didn't use the server again")


@pytest.fixture
def http(scripted):
    return scripted[1]


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        OK + b"Content-Type: text/html\r\n\r\n<h1>Sign in</h1>",
        OK + b"Content-Type: application/json\r\n\r\n{}",
        SSE,
        SSE + b"data: {not json\n\n",
        SSE + b'data: "text"\n\n',
        SSE + b"data: [1, 2]\n\n",
        SSE + b'data: {"choices": 5}\n\n',
        SSE + b'data: {"object": "chat.completion.chunk"}\n\n',
        SSE + b'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
        SSE + b"data: \xff\xfe\n\n",
        SSE + b'data: {"error": {"message": "boom"}}\n\n',
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
        b"HTTP/1.1 500 X\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{}",
    ],
)
async def test_garbage_is_an_error_of_the_engine(server, http, answer, stream):
    server.raw_chat = answer
    response = await http.post("/v1/chat/completions", json=ask(stream=stream))
    assert response.status_code in (502, 503), response.text
    assert response.json()["error"]["code"] in ("engine_error", "engine_unavailable")


async def test_a_reset_in_mid_stream_is_an_error_event_without_done(server, http):
    server.pieces_before_death = 2
    async with http.stream("POST", "/v1/chat/completions", json=ask(stream=True)) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines() if line]
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert error["code"] == "engine_unavailable"
    assert "data: [DONE]" not in lines


async def test_a_slow_server_is_waited_for_as_long_as_it_says_something(server, http):
    server.answering.clear()
    asked = asyncio.create_task(http.post("/v1/chat/completions", json=ask()))
    await until(lambda: server.open_chats == 1)
    await asyncio.sleep(1.5)  # longer than vllm_token_timeout
    server.answering.set()
    answer = await asked
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "base-model"


async def test_a_server_that_fails_on_every_request_is_left_alone_for_a_while(server, http):
    server.chat_failure = (500, "CUDA error: an illegal memory access was encountered")
    codes = []
    for _ in range(8):
        codes.append((await http.post("/v1/chat/completions", json=ask())).status_code)
    assert codes[0] == 502
    asked = sum(server.chats.values())
    assert (await http.post("/v1/chat/completions", json=ask())).status_code in (502, 503)
    assert 503 in codes
    assert sum(server.chats.values()) - asked <= 1


async def test_an_answer_that_nobody_reads_is_cut_off(server, http):
    piece = json.dumps({"choices": [{"delta": {"content": "a" * 100_000}}]}).encode()
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    server.raw_chat = SSE + b"".join(b"data: " + piece + b"\n\n" for _ in range(200)) + end
    body = json.dumps(ask(stream=True)).encode()
    address = urlsplit(str(http.base_url))
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=4096)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await asyncio.sleep(4)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(1_000_000):
            received += data
    writer.close()
    assert b"[DONE]" not in received


async def test_a_client_that_leaves_closes_the_connection_to_the_server(server, http):
    server.answering.clear()
    asked = asyncio.create_task(http.post("/v1/chat/completions", json=ask()))
    await until(lambda: server.open_chats == 1)
    asked.cancel()
    await until(lambda: server.open_chats == 0)
