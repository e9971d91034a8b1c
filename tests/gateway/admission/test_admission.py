"""Limits, deadlines, sizes and draining at the endpoints, on the real gateway in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.access.keyring import Keyring
from gateway.access.keys import Key, digest_of, new_secret
from gateway.admission.draining import Drain
from gateway.admission.engine import AdmittedEngine, places_for
from gateway.app import create_app
from gateway.services import Services
from gateway.stages.infer import InferStage
from routing.embedder import Embedder
from tests.waiting import until

HELLO = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
STORY = {
    "model": "base",
    "messages": [{"role": "user", "content": "Write a very long story."}],
    "max_tokens": 1500,
    "kiki": {"memory": False, "negotiate": False, "antibias": False},
}


def client_of(services: Services, secret: str | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers, timeout=120
    )


@pytest.fixture
def changed(services: Services) -> Callable[..., Services]:
    """The gateway with other settings."""

    def make(**settings) -> Services:
        new = services.settings.model_copy(update=settings)
        return replace(services, settings=new, drain=Drain())

    return make


@pytest.fixture
def limited(changed, tmp_path) -> Callable[..., httpx.AsyncClient]:
    """A caller whose key has limits."""

    def make(**limits) -> httpx.AsyncClient:
        secret = new_secret("anna")
        key = Key(name="anna", sha256=digest_of(secret), **limits)
        keyring = Keyring(tmp_path / "none.toml", [key])
        return client_of(replace(changed(), keyring=keyring), secret)

    return make


async def test_a_keys_requests_a_minute_are_told_and_kept(limited):
    http = limited(requests_per_minute=2)
    first = await http.post("/v1/chat/completions", json=HELLO)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    await http.get("/v1/models")
    refused = await http.post("/v1/chat/completions", json=HELLO)
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "requests"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert 0 < int(refused.headers["retry-after-ms"]) <= 30_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", HELLO),
        ("/v1/embeddings", {"model": "all-mpnet-base-v2", "input": "how to keep bees " * 20}),
    ],
)
async def test_a_keys_tokens_are_counted_and_what_is_overdrawn_is_waited_for(limited, path, body):
    http = limited(tokens_per_minute=5)
    first = await http.post(path, json=body)
    assert first.headers["x-ratelimit-remaining-tokens"] == "5"
    assert first.json()["usage"]["total_tokens"] > 10
    refused = await http.post(path, json=body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "tokens")
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert int(refused.headers["retry-after"]) > 30


async def test_a_keys_requests_at_a_time_are_bounded(limited):
    http = limited(concurrent=1)
    answers = await asyncio.gather(
        *(http.post("/v1/chat/completions", json=HELLO) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]


async def test_a_request_that_takes_too_long_is_ended_with_504_and_frees_its_place(
    changed, services
):
    http = client_of(changed())
    answer = await http.post(
        "/v1/chat/completions", json=STORY, headers={"x-request-timeout": "0.5"}
    )
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    await until(lambda: services.engine.places.rows_running == 0)


async def test_a_stream_that_takes_too_long_ends_with_an_error_event_and_no_done(changed):
    http = client_of(changed())
    answer = await http.post(
        "/v1/chat/completions", json=STORY | {"stream": True}, headers={"x-request-timeout": "1.5"}
    )
    events = [line for line in answer.text.splitlines() if line]
    assert answer.status_code == 200
    assert len(events) > 1
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "deadline_exceeded"
    assert "data: [DONE]" not in events


@pytest.mark.parametrize("asked", ["soon", "0", "-1", "nan", "601"])
async def test_a_deadline_that_is_none_is_refused(changed, asked):
    http = client_of(changed())
    answer = await http.get("/v1/models", headers={"x-request-timeout": asked})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-request-timeout"


async def test_a_body_beyond_the_limit_is_413_said_or_sent_in_pieces(changed):
    http = client_of(changed(max_body=1000))
    body = json.dumps(HELLO | {"user": "x" * 100, "metadata": {"a": "b" * 1000}}).encode()

    async def pieces():
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    headers = {"content-type": "application/json"}
    for content in (body, pieces()):
        answer = await http.post("/v1/chat/completions", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"


async def test_an_import_has_no_limit(changed):
    http = client_of(changed(max_body=1000))
    line = json.dumps({"object": "memory.fact", "text": "x" * 100})
    answer = await http.post("/v1/memory/import", content="\n".join([line] * 50))
    assert answer.json()["skipped"] == 50


async def test_a_full_queue_is_429_before_anything_is_generated(changed):
    services = changed(queue_limit=0, queue_ahead=0)
    engine = services.engine.inner
    engine = AdmittedEngine(engine, places_for(engine, services.settings))
    pipeline = replace(services.pipeline, infer=InferStage(engine))
    http = client_of(replace(services, engine=engine, pipeline=pipeline))
    slots = engine.capabilities.slots
    bodies = [STORY | {"max_tokens": 40, "user": str(number)} for number in range(slots + 2)]
    answers = await asyncio.gather(
        *(http.post("/v1/chat/completions", json=body) for body in bodies)
    )
    assert sorted(answer.status_code for answer in answers) == [200] * slots + [429] * 2
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1


class Counting:
    """The embedder, and how many texts it was given."""

    def __init__(self, embedder: Embedder) -> None:
        self.count_tokens = embedder.count_tokens
        self.given = 0
        self._embedder = embedder

    def submit(self, texts: Sequence[str]) -> Future[NDArray[np.float32]]:
        self.given += len(texts)
        return self._embedder.submit(texts)


async def test_embeddings_that_take_too_long_are_not_made_to_the_end(changed):
    services = changed()
    embedder = Counting(services.embedder)
    http = client_of(replace(services, embedder=embedder))
    texts = [f"how to keep {number} bees" for number in range(2048)]
    body: dict[str, object] = {"model": "all-mpnet-base-v2", "input": texts}
    answer = await http.post("/v1/embeddings", json=body, headers={"x-request-timeout": "0.3"})
    assert answer.status_code == 504
    given = embedder.given
    assert given < len(texts)
    few = await http.post("/v1/embeddings", json=body | {"input": texts[:40]})
    assert [item["index"] for item in few.json()["data"]] == list(range(40))
    assert embedder.given == given + 40


async def test_each_prompt_of_a_completion_waits_for_a_place_like_a_request(changed):
    services = changed(queue_limit=0, queue_ahead=0)
    engine = services.engine.inner
    engine = AdmittedEngine(engine, places_for(engine, services.settings))
    pipeline = replace(services.pipeline, infer=InferStage(engine))
    http = client_of(replace(services, engine=engine, pipeline=pipeline))
    body: dict[str, object] = {"model": "base", "max_tokens": 20}
    slots = engine.capabilities.slots
    for prompts, status in ((slots, 200), (slots + 1, 429)):
        prompt = ["Once upon a time"] * prompts
        answer = await http.post("/v1/completions", json=body | {"prompt": prompt})
        assert answer.status_code == status, answer.text
    assert engine.places.rows_running == engine.places.waiting == 0


async def test_a_draining_gateway_finishes_what_runs_and_takes_nothing_new(changed):
    services = changed()
    http = client_of(services)
    running = asyncio.create_task(
        http.post("/v1/chat/completions", json=STORY | {"max_tokens": 60})
    )
    await until(lambda: services.drain.running == 1)
    drained = asyncio.create_task(services.drain.finished(60))
    await asyncio.sleep(0)
    refused = await http.post("/v1/chat/completions", json=HELLO)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert int(refused.headers["retry-after"]) >= 1
    assert (await http.get("/health/ready")).status_code == 503
    assert (await http.get("/metrics")).status_code == 200
    assert (await running).status_code == 200
    assert await drained is True


async def test_a_drain_that_takes_too_long_says_so():
    drain = Drain()
    with drain.request():
        assert await drain.finished(0) is False
    assert await drain.finished(0) is True
