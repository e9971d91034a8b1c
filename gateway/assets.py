"""The model files that the gateway needs, in the settings' folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.settings import Settings
from kiki.assets import BASE_MODEL, Progress, is_ready, pull
from kiki.errors import AssetError
from routing import model_files

if TYPE_CHECKING:
    from routing.embedder import Embedder


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The base model (GGUF) and the folder of the embedding model."""

    base: Path
    embedder: Path


def ensure_models(
    settings: Settings, progress: Progress | None = None, *, keep_source: bool = False
) -> ModelFiles:
    """Pull and build what isn't there yet. Raises AssetError.

    ``keep_source`` keeps the embedding model's float32 weights, which tests compare with.
    """
    base = settings.model
    if base is None:
        base = settings.models_dir / BASE_MODEL.file
        if not is_ready(BASE_MODEL, settings.models_dir):
            pull([BASE_MODEL], settings.models_dir, progress=progress)
    elif not base.is_file():
        raise AssetError(f"model = {base}: there is no such file.", fix="Correct the setting.")
    embedder = model_files.pull(settings.models_dir, progress=progress, keep_source=keep_source)
    return ModelFiles(base, embedder)


def load_embedder(settings: Settings, progress: Progress | None = None) -> Embedder:
    """The embedding model, pulled where it isn't there yet. Raises AssetError."""
    from routing.embedder import Embedder

    files = ensure_models(settings, progress)
    return Embedder(files.embedder, threads=settings.router_threads)
