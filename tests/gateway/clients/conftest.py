"""A gateway as a process of its own, for clients that come over a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.assets import ModelFiles
from tests.gateway.test_process import gateway


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles) -> Iterator[str]:
    """Its address with ``/v1``. Answers are short, and the same each time."""
    settings = {"default_max_tokens": "300", "default_temperature": "0", "memory": "false"}
    with gateway(tmp_path_factory.mktemp("served"), **settings) as running:
        yield f"{running.client.base_url}/v1".replace("//v1", "/v1")
