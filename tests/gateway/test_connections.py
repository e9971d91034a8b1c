"""Connections that are slow, idle or many, against ``kiki serve`` as a process."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.bench.running import Running, running_gateway, running_module
from gateway.bench.stub_server import SETTINGS
from gateway.connections import MAX_HEAD

CONNECTIONS = int(os.environ.get("KIKI_TEST_CONNECTIONS", "500"))
ASK = {"model": "base", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    settings = SETTINGS | {
        "request_arrival_s": "1",
        "memory": "false",
        "antibias": "false",
        "log_level": "error",
    }
    with (
        running_module("stub_server") as (url, _),
        running_gateway(settings | {"vllm_urls": url}) as gateway,
    ):
        yield gateway


@contextlib.contextmanager
def connected(gateway: Running) -> Iterator[socket.socket]:
    address = urlsplit(gateway.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        yield connection


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def answers(gateway: Running) -> bool:
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=ASK, trust_env=False, timeout=60)
    return answer.status_code == 200


def test_a_head_that_comes_a_byte_at_a_time_is_cut_off_with_408(running):
    with connected(running) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(b"X")
                time.sleep(0.1)
        received = read_to_the_end(connection)
    # A client that goes on writing may be told by a reset alone.
    assert received == b"" or received.startswith(b"HTTP/1.1 408")


def test_a_head_that_stops_gets_408_in_openais_envelope(running):
    with connected(running) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        head, _, body = read_to_the_end(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_a_body_that_stops_gets_408(running):
    with connected(running) as connection:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        connection.sendall(head + b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
        assert read_to_the_end(connection).startswith(b"HTTP/1.1 408")
    assert answers(running)


def test_a_connection_without_a_request_is_closed_without_a_word(running):
    with connected(running) as connection:
        assert read_to_the_end(connection) == b""


def test_a_head_without_end_is_refused(running):
    with connected(running) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /health HTTP/1.1\r\nX-Long: ")
            for _ in range(40):
                connection.sendall(b"a" * (MAX_HEAD // 4))
        received = read_to_the_end(connection)
    assert received == b"" or received.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert answers(running)


def test_two_requests_on_one_connection_have_a_time_each(running):
    with httpx.Client(base_url=running.url, trust_env=False) as client:
        for _ in range(3):
            assert client.get("/v1/models").status_code == 200
            time.sleep(0.6)


def test_many_idle_connections_keep_nobody_waiting():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < CONNECTIONS + 200:
        if hard < CONNECTIONS + 200:
            pytest.skip(f"the system allows {hard} open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = SETTINGS | {"memory": "false", "antibias": "false", "request_arrival_s": "600"}
    with (
        running_module("stub_server") as (url, _),
        running_gateway(settings | {"vllm_urls": url, "log_level": "error"}) as gateway,
        contextlib.ExitStack() as stack,
    ):
        before = gateway.rss_mb()
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(connected(gateway))
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert answers(gateway)
        assert httpx.get(f"{gateway.url}/health", trust_env=False).status_code == 200
        assert gateway.rss_mb() - before < 50 + CONNECTIONS * 0.05
