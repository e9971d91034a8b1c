"""What fails in the memory, or hangs there, holds no chat up."""

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
from gateway.telemetry import Telemetry
from kiki.errors import StoreUnavailableError
from memory import Aeon, Owner
from memory.trace_sqlite import SqliteTrace
from tests.memory import parts


def chat(http: httpx.AsyncClient, user: str, **headers: str):
    body = {
        "model": "base",
        "user": user,
        "messages": [{"role": "user", "content": "My dog is called Rex."}],
        "max_tokens": 2,
    }
    return http.post("/v1/chat/completions", json=body, headers=headers)


def broken(*_args: object, **_options: object) -> None:
    raise ZeroDivisionError("a defect of the memory's own")


@pytest.mark.parametrize("method", ["recall", "write"])
async def test_a_defect_in_the_memory_costs_no_answer_and_is_logged(
    http, services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
):
    monkeypatch.setattr(Aeon, method, broken)
    response = await chat(http, f"greta-{method}")
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"]
    assert response.json()["kiki"]["memory"] == "unavailable"
    assert "ZeroDivisionError: a defect of the memory's own" in caplog.text
    assert "Traceback" in caplog.text
    kept = services.aeon.rights.counts(Owner("local", f"greta-{method}"))
    assert kept.episodes == (method == "recall")


async def test_health_tells_over_http_of_a_store_that_is_down(
    http, services, monkeypatch: pytest.MonkeyPatch
):
    def down(*_args: object) -> None:
        raise StoreUnavailableError("The graph does not answer.")

    with monkeypatch.context() as fault:
        fault.setattr(SqliteTrace, "write", down)
        assert (await chat(http, "hilde")).status_code == 200
        told = (await http.get("/health")).json()
        while told["status"] == "ok":
            told = (await http.get("/health")).json()
        assert told["status"] == told["memory"]["state"] == "degraded"
        assert "The graph does not answer." in told["memory"]["last_error"]
        assert told["memory"]["lag"] >= 1
    assert await asyncio.to_thread(services.aeon.drain, 60)
    told = (await http.get("/health")).json()
    assert (told["status"], told["memory"]["lag"], told["memory"]["last_error"]) == ("ok", 0, None)


async def test_deletes_that_wait_for_a_store_hold_nobody_else_up(
    tmp_path: Path, services, monkeypatch: pytest.MonkeyPatch
):
    released = threading.Event()
    deletes = SqliteTrace.delete

    def hangs(self: SqliteTrace, *args: object) -> None:
        released.wait()
        deletes(self, *args)  # type: ignore[arg-type]

    aeon = parts.aeon(tmp_path / "memory")
    app = FastAPI()
    settings = load_settings(data_dir=tmp_path)
    app.state.services = FolderServices(
        aeon, services.nights, services.embedder, settings, Telemetry()
    )
    errors.install(app)
    app.include_router(memory.router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        items = [{"text": f"Note {number}.", "id": f"n{number}"} for number in range(40)]
        await http.post("/v1/memory", json=items, params={"wait": True})
        monkeypatch.setattr(SqliteTrace, "delete", hangs)
        monkeypatch.setattr("memory.rights.SETTLE_S", 600)
        deleting = [asyncio.create_task(http.delete(f"/v1/memory/n{n}")) for n in range(40)]
        try:
            told = (await http.get("/v1/memory/status")).json()
            while told["episodes"] == len(items):
                told = (await http.get("/v1/memory/status")).json()
            assert not all(one.done() for one in deleting)
        finally:
            released.set()
        assert [(await one).json()["followed"] for one in deleting] == [True] * len(items)
        assert (await http.get("/v1/memory/status")).json()["episodes"] == 0
    await asyncio.to_thread(aeon.close)


async def test_a_delete_for_everyone_does_not_wait_for_a_store_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def down(*_args: object) -> None:
        raise StoreUnavailableError("the store is down")

    aeon = parts.aeon(tmp_path / "memory")
    owners = [Owner("local", f"user {number}") for number in range(3)]
    aeon.rights.keep([parts.episode(tenant=one.tenant, user=one.user) for one in owners])
    assert aeon.drain(60)
    monkeypatch.setattr(SqliteTrace, "delete", down)
    monkeypatch.setattr("memory.rights.SETTLE_S", 10**6)
    erased = await asyncio.to_thread(aeon.rights.delete_all, owners)
    assert (erased.counts.episodes, erased.followed) == (3, False)
    await asyncio.to_thread(aeon.close)
