"""The model files that the gateway needs, in the settings' folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.settings import Settings
from kiki.assets import BASE_MODEL, Progress, is_ready, pull
from routing import model_files

if TYPE_CHECKING:
    from routing.embedder import Embedder


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The base model as the engine takes it, and the folder of the embedding model.

    ``base`` is a GGUF file, a folder, or a name on the hub, which the engine fetches itself.
    """

    base: Path | str
    embedder: Path


def ensure_models(
    settings: Settings, progress: Progress | None = None, *, keep_source: bool = False
) -> ModelFiles:
    """Pull and build what isn't there yet. Raises AssetError.

    ``keep_source`` keeps the embedding model's float32 weights, which tests compare with.
    """
    base = settings.model_path or settings.model or ensure_small_base(settings, progress)
    embedder = model_files.pull(settings.models_dir, progress=progress, keep_source=keep_source)
    return ModelFiles(base, embedder)


def ensure_small_base(settings: Settings, progress: Progress | None = None) -> Path:
    """The small GGUF that kiki pulls: the default to serve, and what adapters are trained on."""
    if not is_ready(BASE_MODEL, settings.models_dir):
        pull([BASE_MODEL], settings.models_dir, progress=progress)
    return settings.models_dir / BASE_MODEL.file


def gguf_base(settings: Settings, progress: Progress | None = None) -> Path:
    """The GGUF that adapters are trained on and converted for: the one served, or the small one."""
    path = settings.model_path
    if path is not None and path.is_file():
        return path
    return ensure_small_base(settings, progress)


def load_embedder(settings: Settings, progress: Progress | None = None) -> Embedder:
    """The embedding model, pulled where it isn't there yet. Raises AssetError."""
    from routing.embedder import Embedder

    files = ensure_models(settings, progress)
    return Embedder(files.embedder, threads=settings.router_threads)
