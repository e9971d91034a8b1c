"""Vectors of training prompts, each embedded once and kept on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("kiki.routing")

CHUNK = 256
"""Texts between two calls of `progress`."""

Progress = Callable[[int, int], None]
"""Called with the texts embedded so far and the texts in all."""


class Embeds(Protocol):
    """What training needs of the embedder."""

    @property
    def id(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class VectorCache:
    """Embeds texts, and keeps the vectors by text hash in one file for each embedding model.

    Args:
        embedder: makes the vectors that are missing.
        folder: holds the file; None keeps nothing.
    """

    def __init__(self, embedder: Embeds, folder: Path | None) -> None:
        self._embedder = embedder
        self._path = folder / f"router-{_file_name(embedder.id)}.npz" if folder else None
        self._vectors: dict[str, NDArray[np.float32]] = {}
        if self._path and self._path.is_file():
            with np.load(self._path) as stored:
                self._vectors = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    @property
    def embedding_id(self) -> str:
        return self._embedder.id

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Shape (len(texts), 768), unit rows in the order of the texts."""
        keys = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
        by_key = dict(zip(keys, texts, strict=True))
        missing = [(key, text) for key, text in by_key.items() if key not in self._vectors]
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            made = self._embedder.embed([text for _, text in part])
            self._vectors.update(zip([key for key, _ in part], made, strict=True))
            if progress:
                progress(min(start + CHUNK, len(missing)), len(missing))
        if missing:
            log.info("embedded %d texts, %d were known", len(missing), len(by_key) - len(missing))
            self._save()
        return np.stack([self._vectors[key] for key in keys])

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial.npz")
        keys = np.array(list(self._vectors))
        np.savez(partial, keys=keys, vectors=np.stack(list(self._vectors.values())))
        partial.replace(self._path)


def _file_name(embedding_id: str) -> str:
    """The id without the colons that some file systems refuse."""
    return embedding_id.replace(":", "-")
