"""The training prompts nearest to a prompt, for explanations."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RoutingError

INDEX_FILE = "prompts.safetensors"
DATA = Path(__file__).with_name("data")
STEPS = 127
BLOCK = 1024
FIX = "Train the router again: kiki router train"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A prompt that the router learned from, and the cosine of both embeddings."""

    prompt: str
    domains: tuple[str, ...]
    similarity: float


class Neighbours:
    """Vectors of the prompts in `routing/data` that the weights were fitted on, in 8 bits.

    The file holds fingerprints, not texts: those are read from the data folder.
    """

    def __init__(
        self,
        codes: NDArray[np.int8],
        scales: NDArray[np.float32],
        prompts: Sequence[tuple[str, tuple[str, ...]]],
    ) -> None:
        self._codes = codes
        self._scales = scales
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._prompts)

    @classmethod
    def read(cls, folder: Path, *, embedding_id: str, data: Path = DATA) -> Neighbours:
        """Reads the index beside the weights; prompts that left the data since are left out.

        Raises:
            RoutingError: the file is missing or damaged, or of another embedding model.
        """
        codes, scales, names = _load(folder / INDEX_FILE, embedding_id)
        texts = dict(_texts(data))
        known = [place for place, name in enumerate(names) if name in texts]
        return cls(codes[known], scales[known], [texts[names[place]] for place in known])

    def nearest(self, vector: NDArray[np.float32], count: int = 5) -> list[Neighbour]:
        """The nearest prompts of a unit vector of shape (768,), the nearest first."""
        cosines = self._cosines(vector[None])[0]
        order = np.argsort(-cosines, kind="stable")[:count].tolist()
        found = [(*self._prompts[place], round(float(cosines[place]), 4)) for place in order]
        return [Neighbour(prompt, domains, cosine) for prompt, domains, cosine in found]

    def highest(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """For each unit vector of (n, 768) the cosine of the nearest prompt."""
        return np.asarray(self._cosines(vectors).max(axis=1, initial=-1))

    def _cosines(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(vectors, prompts); block by block, for the codes take four times the room as floats."""
        cosines = np.empty((len(vectors), len(self._codes)), np.float32)
        for start in range(0, len(self._codes), BLOCK):
            part = self._codes[start : start + BLOCK].astype(np.float32)
            cosines[:, start : start + BLOCK] = vectors @ part.T
        return cosines * self._scales


def loaded_once(read: Callable[[], Neighbours]) -> Callable[[], Neighbours]:
    """`read`, called by the first who asks, while the others wait; what it raises isn't kept."""
    lock = threading.Lock()
    kept = cache(read)

    def loaded() -> Neighbours:
        with lock:
            return kept()

    return loaded


def write(
    folder: Path, prompts: Sequence[str], vectors: NDArray[np.float32], *, embedding_id: str
) -> None:
    """Writes the index of these prompts; `vectors` are their embeddings, unit rows."""
    from safetensors.numpy import save_file

    scales = np.abs(vectors).max(axis=1, initial=1e-6) / np.float32(STEPS)
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    names = np.array([int(fingerprint(prompt), 16) for prompt in prompts], np.uint64)
    tensors = {"codes": codes, "scales": scales, "prompts": names}
    save_file(tensors, folder / INDEX_FILE, metadata={"embedding_id": embedding_id})


def fingerprint(prompt: str) -> str:
    """A prompt's short name in the card and the index: 64 bits of a hash, in hex."""
    return hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _load(path: Path, embedding_id: str) -> tuple[NDArray[np.int8], NDArray[np.float32], list[str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            made_by = (file.metadata() or {}).get("embedding_id")
            codes: NDArray[np.int8] = file.get_tensor("codes")
            scales: NDArray[np.float32] = file.get_tensor("scales")
            names = [f"{name:016x}" for name in file.get_tensor("prompts").tolist()]
    except (OSError, SafetensorError) as error:
        raise RoutingError(
            f"The index of training prompts {path} can't be read: {error}.", fix=FIX
        ) from error
    if made_by != embedding_id or codes.shape[0] != len(names):
        raise RoutingError(
            f"{path} was made of {made_by!r}, the embedder makes {embedding_id!r}.", fix=FIX
        )
    return codes, scales, names


def _texts(data: Path) -> list[tuple[str, tuple[str, tuple[str, ...]]]]:
    """(fingerprint, (prompt, domains)) of every prompt in the folder."""
    found = []
    for path in sorted(data.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            row = json.loads(line) if line.strip() else {}
            if "prompt" in row:
                prompt = str(row["prompt"])
                found.append((fingerprint(prompt), (prompt, tuple(map(str, row["domains"])))))
    return found
