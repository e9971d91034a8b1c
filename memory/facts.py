"""What the memory has learnt from episodes: facts with their times, and summaries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from memory.episode import Owner


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence of the user's that lasts, with two times (Snodgrass 1999): ``valid_*`` is when
    it holds in the world, ``recorded_*`` when this memory takes it for current.

    ``entities`` are folded as `memory.words.entities` gives them. ``source_episode`` is where the
    user said it; ``supersedes`` are the ids of the facts that it took the place of,
    ``conflicts``, where a fact is shown to its owner, of current ones that the last sleep found to
    contradict it. Times are aware UTC; an open end is None.
    """

    id: str
    owner: Owner
    text: str
    entities: tuple[str, ...]
    source_episode: str
    valid_from: datetime
    valid_to: datetime | None
    recorded_from: datetime
    recorded_to: datetime | None
    supersedes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        return self.recorded_to is None


@dataclass(frozen=True, slots=True)
class Summary:
    """A text that stands for several episodes, ``members``, of one owner."""

    id: str
    owner: Owner
    text: str
    members: tuple[str, ...]
    created: datetime


def fact_id(episode: str, number: int) -> str:
    """The same for the same statement of the same episode, so that a repeat changes nothing."""
    return f"{episode}-f{number}"


def summary_id(members: Sequence[str]) -> str:
    """The same for the same episodes, in any order."""
    digest = hashlib.sha256("\n".join(sorted(members)).encode()).hexdigest()
    return f"s-{digest[:24]}"
