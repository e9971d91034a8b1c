"""What the memory's tests build with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory import Aeon, Episode, Owner
from memory.projection import Embed

ALICE = Owner("acme", "alice")
START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
_numbers = itertools.count()


def episode(user_text: str = "hello", answer_text: str = "hi", **changes: Any) -> Episode:
    number = next(_numbers)
    fields: dict[str, Any] = {
        "id": f"e{number:09d}",
        "tenant": ALICE.tenant,
        "user": ALICE.user,
        "conversation": "c1",
        "turn": number,
        "user_text": user_text,
        "answer_text": answer_text,
        "domains": ("chat-fr",),
        "adapters": (("chat-fr", 0.75),),
        "created": START + timedelta(minutes=number),
    }
    return Episode(**fields | changes)


def unit_vectors(count: int, *, seed: int = 0, dimension: int = 768) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def vector_of(text: str) -> NDArray[np.float32]:
    """The same unit vector for the same text; unrelated texts are near orthogonal."""
    vector: NDArray[np.float32] = unit_vectors(1, seed=int.from_bytes(text.encode(), "little"))[0]
    return vector


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([vector_of(text) for text in texts])


def aeon(folder: Path, *, embedding_id: str = "seeded", embed: Embed = embed) -> Aeon:
    """An open memory with seeded vectors."""
    made = Aeon(folder, embedding_id=embedding_id, embed=embed)
    made.open()
    return made


def words(text: str) -> int:
    return len(text.split())
