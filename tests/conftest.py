"""The real parts that tests share: models, embedder, engine, gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.assets import ModelFiles, ensure_models
from gateway.settings import load_settings
from routing.embedder import Embedder


@pytest.fixture(scope="session")
def model_files() -> ModelFiles:
    """The model files of the settings in force; pulled when ``make setup`` was not run."""
    return ensure_models(load_settings())


@pytest.fixture(scope="session")
def models_dir(model_files: ModelFiles) -> Path:
    return model_files.embedder.parent


@pytest.fixture(scope="session")
def base_gguf(model_files: ModelFiles) -> Path:
    return model_files.base


@pytest.fixture(scope="session")
def embedder(model_files: ModelFiles) -> Embedder:
    return Embedder(model_files.embedder, threads=2)
