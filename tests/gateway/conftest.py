"""A whole gateway on real parts: over ASGI in this process, and as a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import httpx2
import pytest
from openai import AsyncOpenAI

from gateway.app import create_app
from gateway.assets import ModelFiles
from gateway.services import Services
from gateway.settings import load_settings


@pytest.fixture(scope="session")
async def services(
    tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles
) -> AsyncIterator[Services]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    services = await Services.start(
        load_settings(data_dir=folder, engine_context=2048), model_files
    )
    yield services
    await services.stop()


@pytest.fixture(scope="session")
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=120
    ) as client:
        yield client


@pytest.fixture(scope="session")
async def openai(services: Services) -> AsyncIterator[AsyncOpenAI]:
    transport = httpx2.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, timeout=120) as client:
        yield AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=client, max_retries=0
        )
