from __future__ import annotations

import os
from pathlib import Path

import pytest

from routing import model_files
from routing.embedder import Embedder


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The model cache, filled on first use."""
    folder = Path(os.environ.get("KIKI_MODELS_DIR", Path.home() / ".cache/kiki/models"))
    model_files.pull(folder)
    return folder


@pytest.fixture(scope="session")
def embedder(models_dir: Path) -> Embedder:
    return Embedder(models_dir / model_files.NAME)
