"""Adapters that come and go while the gateway serves."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from adapters.catalog import SHIPPED
from gateway.app import create_app
from gateway.assets import ModelFiles
from gateway.services import Services
from gateway.settings import load_settings
from tests.waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Below a name that file watchers like to pass over.
    folder = tmp_path_factory.mktemp("gateway") / ".venv" / "adapters"
    folder.mkdir(parents=True)
    shutil.copytree(SHIPPED / "shell", folder / "shell")
    return folder


@pytest.fixture(scope="module")
async def services(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles
) -> AsyncIterator[Services]:
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"), adapters_dir=folder, engine_context=1024
    )
    services = await Services.start(settings, model_files)
    yield services
    await services.stop()


@pytest.fixture(scope="module")
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://k", timeout=120) as client:
        yield client


async def ask(http: httpx.AsyncClient, model: str, tokens: int = 8) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "How do I list files?"}],
        "max_tokens": tokens,
        "temperature": 0,
        "raw_mode": True,
    }
    return await http.post("/v1/chat/completions", json=body)


async def served(http: httpx.AsyncClient) -> set[str]:
    return {row["id"] for row in (await http.get("/v1/adapters")).json()["data"]}


async def test_a_new_adapter_appears_without_a_restart(http, services, folder):
    assert (await ask(http, "sql")).headers["x-kiki-base-only"] == "sql"
    shutil.copytree(SHIPPED / "sql", folder / "sql")
    await until(lambda: "sql" in services.engine.adapters)
    answer = await ask(http, "sql")
    assert answer.status_code == 200
    assert "x-kiki-base-only" not in answer.headers
    models = {model["id"] for model in (await http.get("/v1/models")).json()["data"]}
    assert models == {"micro-kiki", "base", "shell", "sql"}
    metrics = (await http.get("/metrics")).text
    assert 'kiki_adapter_swap_seconds_count{method="restart"} 1.0' in metrics
    assert 'kiki_adapter_swap_seconds_count{method="load"} 0.0' in metrics


async def test_a_folder_that_is_made_anew_is_watched_again(services, folder):
    gone = folder.rename(folder.with_name("gone"))
    shutil.copytree(gone / "shell", folder / "shell")
    shutil.copytree(SHIPPED / "python", folder / "python")
    await until(lambda: "python" in services.engine.adapters)
    shutil.rmtree(folder / "python")
    await until(lambda: "python" not in services.engine.adapters)


async def test_a_removed_adapter_finishes_what_runs_and_is_refused_after(http, folder):
    shutil.copytree(SHIPPED / "spice", folder / "spice")
    change = (await http.post("/v1/adapters/refresh")).json()
    assert "spice" in {*change["added"], *(await served(http))}
    running = asyncio.create_task(ask(http, "spice", tokens=80))
    await asyncio.sleep(0.3)
    shutil.rmtree(folder / "spice")
    await http.post("/v1/adapters/refresh")
    assert "spice" not in await served(http)
    assert (await running).status_code == 200
    body = {
        "model": "micro-kiki",
        "messages": [{"role": "user", "content": "Hello."}],
        "kiki": {"adapters": {"spice": 1.0}},
    }
    refused = await http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "adapter_not_found"
    assert (await ask(http, "spice")).headers["x-kiki-base-only"] == "spice"


async def test_a_sick_adapter_is_left_out_with_its_reason_and_the_rest_serves(http, folder):
    shutil.copytree(SHIPPED / "cpp", folder / "torn")
    weights = folder / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    await http.post("/v1/adapters/refresh")
    listed = (await http.get("/v1/adapters")).json()
    assert [row["id"] for row in listed["refused"]] == ["torn"]
    assert str(folder / "torn") in listed["refused"][0]["reason"]
    assert "torn" in (await http.get("/health")).json()["adapters_refused"]
    assert (await ask(http, "shell")).status_code == 200
    shutil.rmtree(folder / "torn")


async def test_a_folder_that_is_gone_leaves_the_adapters_as_they_are(http, folder):
    before = await served(http)
    moved = folder.rename(folder.with_name("moved"))
    response = await http.post("/v1/adapters/refresh")
    moved.rename(folder)
    assert response.status_code == 500
    assert str(folder) in response.json()["error"]["message"]
    assert await served(http) == before
