"""The current facts of an owner, found by meaning, by what they are about, and by name."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memory.cerebellum.arbitrate import about
from memory.cerebellum.concepts import Statement, read
from memory.episode import Owner
from memory.fact_log import FactLog
from memory.facts import Fact
from memory.words import entities

MAX_FACTS = 1000
"""An owner's newest facts that are compared; 3 MB of vectors."""
MAX_OWNERS = 32
"""Owners whose facts are held at once."""
# A fact answers a question from ALONE by its meaning, from SUPPORTED when the question also shares
# a name or what it is about (the cosines of all-mpnet-base-v2, see `memory.recall`), and across
# languages, where its cosine tells little, when nearly all of what is asked about is in the fact.
ALONE = 0.45
SUPPORTED = 0.28
COVERED = 0.75

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class FactHit:
    """A current fact, its cosine to what was asked, and why it came."""

    fact: Fact
    cosine: float
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shelf:
    state: tuple[int, int]
    facts: tuple[Fact, ...]
    statements: tuple[Statement, ...]
    vectors: NDArray[np.float32]


class FactIndex:
    """Searches the facts of one owner at a time. What it holds is read again after a change, so
    that it is never older than the journal. Thread-safe; raises `StoreError`."""

    def __init__(self, log: FactLog, embed: Embed) -> None:
        self._log = log
        self._embed = embed
        self._shelves: OrderedDict[Owner, _Shelf] = OrderedDict()
        self._lock = threading.Lock()

    def near(
        self, owner: Owner, statement: Statement, vector: NDArray[np.float32], limit: int
    ) -> list[FactHit]:
        """The facts that a new statement may change, nearest first."""
        hits = []
        for fact, other, cosine in self._all(owner, vector):
            overlap = _overlap(statement, other)
            score = max(cosine, overlap)
            if score >= SUPPORTED:
                hits.append(FactHit(fact, cosine, score, ()))
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    def answering(
        self, owner: Owner, question: str, vector: NDArray[np.float32], limit: int
    ) -> list[FactHit]:
        """The facts that bear on a question (embedded as ``vector``), best first."""
        asked = read(question)
        names = set(entities(question))
        hits = []
        for fact, statement, cosine in self._all(owner, vector):
            shared = about(asked) & about(statement)
            named = sorted(names.intersection(fact.entities))
            covered = len(shared) / max(1, len(about(asked)))
            floor = SUPPORTED if shared or named else ALONE
            if cosine < floor and covered < COVERED:
                continue
            reasons = [f"fact {cosine:.2f}"]
            reasons += [f"mentions {', '.join(named)}"] if named else []
            reasons += [f"about {', '.join(sorted(shared))}"] if shared else []
            hits.append(FactHit(fact, cosine, cosine + 0.3 * covered, tuple(reasons)))
        return sorted(hits, key=lambda hit: (-hit.score, -hit.fact.valid_from.timestamp()))[:limit]

    def _all(
        self, owner: Owner, vector: NDArray[np.float32]
    ) -> list[tuple[Fact, Statement, float]]:
        shelf = self._shelf(owner)
        if not shelf.facts:
            return []
        cosines = (shelf.vectors @ vector).tolist()
        return list(zip(shelf.facts, shelf.statements, cosines, strict=True))

    def _shelf(self, owner: Owner) -> _Shelf:
        state = self._log.state(owner)
        with self._lock:
            found = self._shelves.get(owner)
            if found is not None and found.state == state:
                self._shelves.move_to_end(owner)
                return found
        made = self._read(owner, state)
        with self._lock:
            self._shelves[owner] = made
            self._shelves.move_to_end(owner)
            while len(self._shelves) > MAX_OWNERS:
                self._shelves.popitem(last=False)
        return made

    def _read(self, owner: Owner, state: tuple[int, int]) -> _Shelf:
        rows = self._log.current(owner, MAX_FACTS)
        vectors = {row.fact.id: row.vector for row in rows if row.vector is not None}
        missing = [row.fact for row in rows if row.vector is None]
        if missing:
            made = self._embed([fact.text for fact in missing])
            embedded = {fact.id: one for fact, one in zip(missing, made, strict=True)}
            self._log.keep_vectors(embedded)
            vectors |= embedded
        facts = tuple(row.fact for row in rows)
        matrix = (
            np.stack([vectors[fact.id] for fact in facts])
            if facts
            else np.empty((0, 0), np.float32)
        )
        return _Shelf(state, facts, tuple(read(fact.text) for fact in facts), matrix)


def _overlap(first: Statement, second: Statement) -> float:
    """The share of the smaller statement's concepts that both have, where one tells something."""
    shared = first.concepts & second.concepts
    if not about(first) & about(second):
        return 0.0
    return len(shared) / min(len(first.concepts), len(second.concepts))
