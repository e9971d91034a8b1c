"""The current facts and the summaries of an owner, by meaning, by subject, and by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from memory.cerebellum.arbitrate import SAYS_MORE, about, arbitrate
from memory.cerebellum.concepts import Statement, read
from memory.episode import Owner
from memory.fact_log import FactLog
from memory.facts import Fact, Summary
from memory.shelves import Embed, Shelf, Shelves
from memory.summary_log import SummaryLog
from memory.words import entities

# A fact answers a question from ALONE by its meaning, from SUPPORTED when the question also shares
# a name or what it is about (cosines of all-mpnet-base-v2), and across languages, where its cosine
# tells little, when nearly all of what is asked about is in the fact.
ALONE = 0.45
SUPPORTED = 0.28
COVERED = 0.75
COVERED_GAIN = 0.3
MAX_SHARERS = 50
"""A concept that more facts share tells no two of them apart."""


@dataclass(frozen=True, slots=True)
class FactHit:
    """A current fact, its cosine to what was asked, and why it came."""

    fact: Fact
    cosine: float
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SummaryHit:
    """A summary and its cosine to what was asked."""

    summary: Summary
    cosine: float


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two current facts that can't both hold, the older first."""

    first: str
    second: str
    reason: str
    found: datetime | None = None


class FactIndex:
    """Searches what is known of one owner at a time. Thread-safe; raises `StoreError`."""

    def __init__(self, facts: FactLog, summaries: SummaryLog, embed: Embed) -> None:
        self._facts: Shelves[Fact] = Shelves(facts, embed)
        self._summaries: Shelves[Summary] = Shelves(summaries, embed)

    def near(
        self, owner: Owner, statement: Statement, vector: NDArray[np.float32], limit: int
    ) -> list[FactHit]:
        """The facts that a new statement may change, nearest first."""
        hits = []
        for fact, other, cosine in self._facts.of(owner).compared(vector):
            score = max(cosine, _overlap(statement, other))
            if score >= SUPPORTED:
                hits.append(FactHit(fact, cosine, score, ()))
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    def answering(
        self, owner: Owner, question: str, vector: NDArray[np.float32], limit: int
    ) -> list[FactHit]:
        """The facts that bear on a question (embedded as ``vector``), best first."""
        asked = about(read(question))
        names = set(entities(question))
        shelf = self._facts.of(owner)
        if not shelf.items:
            return []
        cosines = shelf.cosines(vector)
        # Only what can pass is looked at: near by itself, or about something that is asked about.
        places = {*np.flatnonzero(cosines >= ALONE).tolist()}
        places.update(place for one in asked for place in shelf.by_subject.get(one, ()))
        hits = []
        for place in places:
            fact, cosine = shelf.items[place], float(cosines[place])
            shared = asked & about(shelf.statements[place])
            named = sorted(names.intersection(fact.entities))
            covered = len(shared) / max(1, len(asked))
            floor = SUPPORTED if shared or named else ALONE
            if cosine < floor and covered < COVERED:
                continue
            reasons = [f"fact {cosine:.2f}"]
            reasons += [f"mentions {', '.join(named)}"] if named else []
            reasons += [f"about {', '.join(sorted(shared))}"] if shared else []
            hits.append(FactHit(fact, cosine, cosine + COVERED_GAIN * covered, tuple(reasons)))
        return sorted(hits, key=lambda hit: (-hit.score, -hit.fact.valid_from.timestamp()))[:limit]

    def summaries(self, owner: Owner, vector: NDArray[np.float32], limit: int) -> list[SummaryHit]:
        """The summaries near a question, best first."""
        found = self._summaries.of(owner).compared(vector)
        hits = [SummaryHit(one, cosine) for one, _, cosine in found if cosine >= ALONE]
        return sorted(hits, key=lambda hit: -hit.cosine)[:limit]

    def conflicts(self, owner: Owner) -> list[Conflict]:
        """Pairs of current facts of which the newer contradicts the older, by the rules."""
        shelf = self._facts.of(owner)
        found = []
        for one, other in _pairs(shelf):
            old, new = sorted((one, other), key=lambda place: shelf.items[place].valid_from)
            verdict = arbitrate(
                shelf.statements[old],
                shelf.statements[new],
                float(shelf.vectors[old] @ shelf.vectors[new]),
            )
            if verdict.action == "UPDATE" and verdict.reason != SAYS_MORE:
                found.append(Conflict(shelf.items[old].id, shelf.items[new].id, verdict.reason))
        return found


def _pairs(shelf: Shelf[Fact]) -> Iterator[tuple[int, int]]:
    """Places of facts that share what they are about."""
    seen: set[tuple[int, int]] = set()
    for places in shelf.by_subject.values():
        if len(places) <= MAX_SHARERS:
            seen.update((one, other) for one in places for other in places if one < other)
    yield from sorted(seen)


def _overlap(first: Statement, second: Statement) -> float:
    """The share of the smaller statement's concepts that both have."""
    shared = first.concepts & second.concepts
    return len(shared) / min(len(first.concepts), len(second.concepts)) if shared else 0.0
