"""Trace: finds episodes by their words, and by who and what they mention; holds what was learnt."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memory.episode import Episode, Owner
from memory.facts import Fact, Summary

# At most so many of the newest episodes are read for one word or one entity: it bounds the time
# of a common word, which tells little anyway.
MAX_POSTINGS = 64
FOLLOW_UP_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class TraceHit:
    """``score`` grows with the match; it compares within one search only. ``names`` are the
    entities that led there."""

    id: str
    score: float
    names: tuple[str, ...] = ()


class GraphStore(Protocol):
    """Episodes, their words, what they mention, and what was learnt from them.

    Nodes: Episode, Entity, Conversation, Fact, Summary. Edges: NEXT (turn to turn of a
    conversation), MENTIONS (episode to entity), IN (episode to conversation), CAUSES (episode to
    the fact learnt from it), ABOUT (fact to entity), SUPERSEDES (fact to the fact it took the
    place of), SUMMARISES (summary to episode).

    Every search stays inside one owner; what is written again replaces what was there.
    Thread-safe; raises `StoreError`, or `StoreUnavailableError` when down for now.
    """

    @property
    def generation(self) -> str: ...

    def write(self, episodes: Sequence[Episode]) -> None:
        """Brings the episodes in; one that is there already is left."""
        ...

    def write_facts(self, facts: Sequence[Fact]) -> None: ...

    def write_summaries(self, summaries: Sequence[Summary]) -> None: ...

    def search_text(self, owner: Owner, text: str, limit: int) -> list[TraceHit]:
        """Episodes that share words with ``text``."""
        ...

    def neighbours(self, owner: Owner, names: Sequence[str], limit: int) -> list[TraceHit]:
        """Episodes that mention one of the entities, and, at `FOLLOW_UP_WEIGHT`, the turn after
        each, which often goes on about it without the name."""
        ...

    def around(self, owner: Owner, id_: str, reach: int) -> list[str]:
        """The episodes up to ``reach`` turns before and after one of its conversation, by turn."""
        ...

    def facts_about(
        self,
        owner: Owner,
        names: Sequence[str],
        limit: int,
        *,
        valid_at: datetime,
        known_at: datetime,
    ) -> list[Fact]:
        """Facts about one of the entities that held at ``valid_at`` by what was known at
        ``known_at``, the latest to begin first."""
        ...

    def history(self, owner: Owner, id_: str) -> list[Fact]:
        """A fact and all that it took the place of, the newest first."""
        ...

    def summaries_of(self, owner: Owner, ids: Collection[str]) -> dict[str, str]:
        """The id of a summary by the episode that it covers."""
        ...

    def delete(self, owner: Owner, ids: Collection[str]) -> None:
        """Takes the owner's episodes, facts and summaries out, with what is left bare."""
        ...

    def scrub(self) -> None:
        """Leaves nothing of what was deleted in files that this process writes."""
        ...

    def verify(self) -> None:
        """Raises `StoreReplacedError` when another process made the store anew since it was
        opened."""
        ...

    def count(self, owner: Owner | None = None) -> int:
        """How many episodes."""
        ...

    def close(self) -> None: ...


def rarity(found: float, total: int) -> float:
    """BM25's inverse document frequency, in the form that is never negative."""
    return math.log1p((total - found + 0.5) / (found + 0.5))


def word_score(rarity: float, words: int) -> float:
    """BM25 with term frequency 1 (turns are short), of an episode of so many words."""
    return 2.2 * rarity / (1.3 + 0.015 * words)
