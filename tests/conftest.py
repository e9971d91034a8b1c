"""The real parts that tests share: models, embedder, engine, gateway."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from adapters.training.export import dequantize_gguf, export_hf
from gateway.assets import ModelFiles, ensure_models, ensure_small_base
from gateway.settings import load_settings
from routing.embedder import Embedder

# How long an example takes depends on who else uses the machine.
hypothesis.settings.register_profile("kiki", deadline=None)
hypothesis.settings.load_profile("kiki")


@pytest.fixture(scope="session")
def model_files() -> ModelFiles:
    """The model files of the settings in force; pulled when ``make setup`` was not run."""
    return ensure_models(load_settings())


@pytest.fixture(scope="session")
def models_dir(model_files: ModelFiles) -> Path:
    return model_files.embedder.parent


@pytest.fixture(scope="session")
def base_gguf(model_files: ModelFiles) -> Path:
    """The small base that is pulled, whatever the settings serve."""
    return ensure_small_base(load_settings())


@pytest.fixture(scope="session")
def embedder(model_files: ModelFiles) -> Embedder:
    return Embedder(model_files.embedder, threads=2)


@pytest.fixture(scope="session")
def f32_base(base_gguf: Path) -> Path:
    """The base with every weight as F32: on it, engines can be compared to 1e-4."""
    out = base_gguf.with_name("SmolLM2-135M-Instruct.F32.gguf")
    if not out.is_file():
        made = out.with_suffix(f".{os.getpid()}")
        dequantize_gguf(base_gguf, made)
        made.replace(out)
    return out


@pytest.fixture(scope="session")
def hf_base(base_gguf: Path) -> Path:
    """The same weights in the folder that mlx_lm and vLLM read."""
    out = base_gguf.with_name("SmolLM2-135M-Instruct.F32")
    export_hf(base_gguf, out)
    return out
