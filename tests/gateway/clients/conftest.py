"""A gateway as a process of its own, for clients that come over a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.assets import ModelFiles
from tests.gateway.test_process import gateway


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory, model_files: ModelFiles) -> Iterator[str]:
    """Its address with ``/v1``. Answers are short, and the same each time."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KIKI_DEFAULT_MAX_TOKENS", "300")
        environment.setenv("KIKI_DEFAULT_TEMPERATURE", "0")
        environment.setenv("KIKI_MEMORY", "false")
        with gateway(tmp_path_factory.mktemp("served")) as running:
            yield f"{running.client.base_url}/v1".replace("//v1", "/v1")
