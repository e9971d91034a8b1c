"""``kiki serve --workers 2`` as processes: one memory, one page of metrics, no lost episode."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.bench.running import Running, running_gateway, running_module
from gateway.bench.stub_server import SETTINGS
from tests.waiting import alive, until

REQUESTS = 40


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with (
        running_module("stub_server") as (url, _),
        running_gateway(SETTINGS | {"vllm_urls": url, "workers": "2"}) as running,
    ):
        yield running


def ask(text: str, **fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": "base", "messages": messages, "max_tokens": 2, "user": "kim"} | fields


async def each_anew(gateway: Running, *bodies: dict[str, object]) -> list[httpx.Response]:
    """A connection a request, so that both workers get some."""

    async def one(body: dict[str, object]) -> httpx.Response:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False) as http:
            return await http.post("/v1/chat/completions", json=body)

    return list(await asyncio.gather(*map(one, bodies)))


def workers_of(gateway: Running) -> list[int]:
    """Process ids of the workers, the memory's owner first."""
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    found = [
        int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return sorted(found)


def number(metrics: str, pattern: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", metrics, re.MULTILINE))


async def test_all_workers_write_into_one_memory_and_count_on_one_page(gateway):
    bodies = [ask(f"Number {one} is my favourite.") for one in range(REQUESTS)]
    answers = await each_anew(gateway, *bodies)
    assert Counter(answer.status_code for answer in answers) == {200: REQUESTS}
    assert all(answer.headers["x-kiki-memory"] == "ok" for answer in answers)
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        kept = (await http.get("/v1/memory", params={"user": "kim", "limit": 100})).json()["data"]
        metrics = (await http.get("/metrics")).text
    assert {one["id"] for one in kept} >= {answer.json()["id"] for answer in answers}
    assert number(metrics, r'kiki_requests_total\{model="base",status="200"\}') == REQUESTS


async def test_a_repeat_with_its_key_is_recognised_by_every_worker(gateway):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        headers = {"Idempotency-Key": "once"}
        first = await http.post("/v1/chat/completions", json=ask("Once."), headers=headers)
    for _ in range(10):
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
            again = await http.post("/v1/chat/completions", json=ask("Once."), headers=headers)
        assert again.headers["x-kiki-replayed"] == "true"
        assert again.json()["id"] == first.json()["id"]


async def test_memory_is_searched_and_exported_through_every_worker(gateway):
    for _ in range(6):
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
            found = await http.post(
                "/v1/memory/search", json={"q": "Which number?", "user": "kim", "limit": 3}
            )
            assert found.status_code == 200, found.text
            exported = await http.get("/v1/memory/export", params={"user": "kim"})
            assert exported.status_code == 200
            assert exported.text.count("\n") >= REQUESTS
            assert (await http.get("/v1/memory/unknown-id")).status_code == 404


async def test_without_the_memorys_owner_answers_go_on_and_say_so(gateway):
    owner = workers_of(gateway)[0]
    os.kill(owner, signal.SIGKILL)
    await until(lambda: not alive(owner) or owner not in workers_of(gateway))
    answers = await each_anew(gateway, *[ask("Do you remember?")] * 5)
    assert {answer.status_code for answer in answers} == {200}
    assert "unavailable" in {answer.json().get("kiki", {}).get("memory") for answer in answers}
    deadline = time.monotonic() + 60
    while True:
        (answer,) = await each_anew(gateway, ask("And now?"))
        if answer.headers["x-kiki-memory"] == "ok" and "kiki" not in answer.json():
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)


async def test_a_worker_that_is_killed_is_started_again_and_the_other_answers_meanwhile(gateway):
    """After the owner's test, both are ready; a new process has the higher number."""
    other, owner = workers_of(gateway)
    os.kill(other, signal.SIGKILL)
    for answer in await each_anew(gateway, *[ask("Still there?")] * 5):
        assert answer.status_code == 200
    await until(lambda: len(workers_of(gateway)) == 2 and other not in workers_of(gateway))
    assert owner in workers_of(gateway)


async def test_workers_end_with_a_parent_that_is_killed_and_let_the_port_go():
    with (
        running_module("stub_server") as (url, _),
        running_gateway(SETTINGS | {"vllm_urls": url, "workers": "2"}) as gateway,
    ):
        pids = workers_of(gateway)
        os.kill(gateway.pid, signal.SIGKILL)
        await until(lambda: not any(map(alive, pids)))


def test_workers_in_front_of_an_engine_of_their_own_are_refused(tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--port", "0", "--workers", "2"],
        env=os.environ | {"KIKI_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 78  # a wrong setting
    assert "workers = 2" in told.stderr
    assert "vllm_urls" in told.stderr
