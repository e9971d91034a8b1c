"""Adapters that come and go while the gateway serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from adapters.catalog import SHIPPED
from adapters.engines.base import GenerateRequest, Message, Sampling
from adapters.forms import read_base_shape, read_lora, write_lora
from adapters.mix import Mix
from gateway.app import create_app
from gateway.assets import ModelFiles
from gateway.services import Services
from gateway.settings import load_settings
from tests.waiting import until

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
QUESTION = "How do I list files?"


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
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=120
    ) as client:
        yield client


async def ask(http: httpx.AsyncClient, model: str, tokens: int = 8) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": tokens,
        "temperature": 0,
        "raw_mode": True,
    }
    return await http.post("/v1/chat/completions", json=body)


async def mixed(http: httpx.AsyncClient, adapters: dict[str, float]) -> httpx.Response:
    body = {
        "model": "micro-kiki",
        "messages": [{"role": "user", "content": "Hello."}],
        "max_tokens": 4,
        "raw_mode": True,
        "kiki": {"adapters": adapters},
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


async def test_a_removed_adapter_finishes_what_runs_and_is_refused_after(http, services, folder):
    shutil.copytree(SHIPPED / "spice", folder / "spice")
    await http.post("/v1/adapters/refresh")
    assert "spice" in await served(http)
    alone = (await ask(http, "spice", tokens=40)).json()["choices"][0]["message"]["content"]
    asked = GenerateRequest(
        (Message("user", QUESTION),), Mix.single("spice"), Sampling(40, temperature=0.0)
    )
    async with aclosing(services.engine.generate([asked])) as running:
        first = await anext(running)
        shutil.rmtree(folder / "spice")
        await http.post("/v1/adapters/refresh")
        assert "spice" not in await served(http)
        refused = await mixed(http, {"spice": 1.0})
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "adapter_not_found"
        assert (await ask(http, "spice")).headers["x-kiki-base-only"] == "spice"
        assert first.text + "".join([delta.text async for delta in running]) == alone


def cut_off(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def change_config(adapter: Path, **changes: object) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(config | changes))


def truncated(folder: Path, base: Path) -> None:
    cut_off(Path(shutil.copytree(SHIPPED / "cpp", folder / "bad")) / WEIGHTS, 5000)


def truncated_gguf(folder: Path, base: Path) -> None:
    write_lora(read_lora(SHIPPED / "cpp"), "gguf", folder / "bad.gguf", base=read_base_shape(base))
    cut_off(folder / "bad.gguf", 50_000)


def huge_header(folder: Path, base: Path) -> None:
    weights = Path(shutil.copytree(SHIPPED / "cpp", folder / "bad")) / WEIGHTS
    weights.write_bytes((2**60).to_bytes(8, "little") + b"{}")


def gguf_that_claims_a_trillion_entries(folder: Path, base: Path) -> None:
    counts = (10**12).to_bytes(8, "little") * 2
    (folder / "bad.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + counts)


def gguf_of_another_shape(folder: Path, base: Path) -> None:
    shape = read_base_shape(base)
    lora = read_lora(SHIPPED / "cpp")
    weights = {
        name: replace(weight, b=weight.b[:-64]) if weight.kind == "self_attn.v_proj" else weight
        for name, weight in lora.weights.items()
    }
    smaller = {
        name: (size[0] - 64, size[1]) if name.endswith("attn_v.weight") else size
        for name, size in shape.weights.items()
    }
    odd = replace(shape, weights=smaller)
    write_lora(replace(lora, weights=weights), "gguf", folder / "bad.gguf", base=odd)


def lying_config(folder: Path, base: Path) -> None:
    change_config(Path(shutil.copytree(SHIPPED / "cpp", folder / "bad")), r=8)


def link_out_of_the_folder(folder: Path, base: Path) -> None:
    shutil.copytree(SHIPPED / "cpp", folder / "bad")
    (folder / "bad" / WEIGHTS).unlink()
    (folder / "bad" / WEIGHTS).symlink_to(SHIPPED / "cpp" / WEIGHTS)


def folder_elsewhere(folder: Path, base: Path) -> None:
    (folder / "bad").symlink_to(SHIPPED / "cpp")


def another_of_its_name(folder: Path, base: Path) -> None:
    shutil.copytree(SHIPPED / "cpp", folder / "bad")
    write_lora(read_lora(SHIPPED / "sql"), "gguf", folder / "bad.gguf", base=read_base_shape(base))


BAD = {
    truncated: "is cut off",
    truncated_gguf: "room for",
    huge_header: "is cut off in its header",
    gguf_that_claims_a_trillion_entries: "claims 1000000000000 entries",
    gguf_of_another_shape: "the base's is",
    lying_config: "the config says rank 8",
    link_out_of_the_folder: "outside the adapter's folder",
    folder_elsewhere: "leads out of",
    another_of_its_name: "have the same name",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
async def test_a_bad_adapter_is_one_clear_refusal_and_serving_goes_on(
    http, services, folder, base_gguf, spoil
):
    before = services.engine.inner.pid
    spoil(folder, base_gguf)
    try:
        change = (await http.post("/v1/adapters/refresh")).json()
        assert [one["id"] for one in change["refused"]] == ["bad"]
        reason = change["refused"][0]["reason"]
        assert BAD[spoil] in reason
        assert str(folder / "bad") in reason
        assert (await http.get("/v1/adapters")).json()["refused"] == change["refused"]
        assert "bad" in (await http.get("/health")).json()["adapters_refused"]
        assert "bad" not in await served(http)
        asked = await mixed(http, {"bad": 1.0})
        assert (asked.status_code, asked.json()["error"]["code"]) == (404, "adapter_not_found")
        assert (await mixed(http, {"shell": 1.0})).status_code == 200
        assert services.engine.inner.pid == before  # no server was started for it
    finally:
        for path in (folder / "bad", folder / "bad.gguf"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        await http.post("/v1/adapters/refresh")


async def test_an_engine_that_dies_comes_back_though_the_file_of_an_adapter_is_gone(
    http, services, folder, base_gguf
):
    file = folder / "mine.gguf"
    write_lora(read_lora(SHIPPED / "sql"), "gguf", file, base=read_base_shape(base_gguf))
    await http.post("/v1/adapters/refresh")
    assert "mine" in await served(http)
    assert (await mixed(http, {"mine": 1.0})).status_code == 200
    file.unlink()
    pid = services.engine.inner.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: services.engine.state == "ready" and services.engine.inner.pid != pid)
    assert (await mixed(http, {"shell": 1.0})).status_code == 200
    await http.post("/v1/adapters/refresh")
    assert (await mixed(http, {"mine": 1.0})).status_code == 404


async def test_a_folder_that_is_gone_leaves_the_adapters_as_they_are(http, folder):
    before = await served(http)
    moved = folder.rename(folder.with_name("moved"))
    response = await http.post("/v1/adapters/refresh")
    moved.rename(folder)
    assert response.status_code == 500
    assert str(folder) in response.json()["error"]["message"]
    assert await served(http) == before
