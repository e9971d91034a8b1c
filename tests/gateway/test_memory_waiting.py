"""Callers who wait for the stores, and nights that fail, hold nobody else up."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.api import errors, memory
from gateway.cli.memory_desk import FolderServices
from gateway.settings import load_settings
from gateway.sleeping import sleeping
from gateway.telemetry import Telemetry
from memory import Aeon
from tests.memory import parts


async def test_others_are_answered_while_many_wait_for_a_store(tmp_path: Path, services):
    embedding = threading.Event()

    def slow(texts):
        embedding.wait()
        return parts.embed(texts)

    aeon = Aeon(tmp_path / "memory", embedding_id="seeded", embed=slow)
    aeon.open()
    app = FastAPI()
    settings = load_settings(data_dir=tmp_path)
    app.state.services = FolderServices(
        aeon, services.nights, services.embedder, settings, Telemetry()
    )
    errors.install(app)
    app.include_router(memory.router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        waits = [
            asyncio.create_task(
                http.post("/v1/memory", json={"text": f"Note {number}."}, params={"wait": True})
            )
            for number in range(40)  # more than a process has threads for its loop
        ]
        try:
            told = (await http.get("/v1/memory/status")).json()
            while told["episodes"] < len(waits):
                told = (await http.get("/v1/memory/status")).json()
            assert told["lag"] == len(waits)
            assert not any(wait.done() for wait in waits)
        finally:
            embedding.set()
        assert {(await wait).status_code for wait in waits} == {200}
        assert (await http.get("/v1/memory/status")).json()["lag"] == 0
    await asyncio.to_thread(aeon.close)


async def test_a_night_that_fails_is_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    aeon = parts.aeon(tmp_path / "memory")
    nights: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def fails(*_args, **_options):
        loop.call_soon_threadsafe(nights.put_nowait, None)
        raise ValueError("a model that is not there")

    monkeypatch.setattr(aeon.knowledge, "sleep", fails)
    monkeypatch.setattr("gateway.sleeping.until", lambda *_: 0.01)
    async with sleeping(aeon, load_settings(sleep_at="1h"), None):
        await nights.get()
        await nights.get()
    assert "a model that is not there" in caplog.text
    await asyncio.to_thread(aeon.close)
