"""Recall: vectors, words and the graph searched, fused, filtered and cut to a token budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memory.atlas import VectorHit
from memory.episode import RecalledEpisode, Recollection
from memory.journal import JournalRow
from memory.render import render_block, render_quote
from memory.trace import TraceHit

# Reciprocal rank fusion (Cormack, Clarke, Buettcher 2009): score = sum of 1 / (K + rank).
RRF_K = 60
# Each search gives so many candidates, and so many of all are looked at closely.
CANDIDATES = 24
FUSED = 24
# Cosines of all-mpnet-base-v2: an episode passes alone from ALONE, or from SUPPORTED when it also
# shares words or names with the question (tests/memory/test_relevance.py measures both).
ALONE = 0.35
SUPPORTED = 0.28
# Two episodes whose user texts are this close say the same; the newest is kept.
SAME = 0.97


@dataclass(frozen=True, slots=True)
class Candidate:
    """An episode that a search gave: its fused score, and whether it shares words or names with
    the question, as ``reasons`` say."""

    id: str
    score: float
    reasons: tuple[str, ...]


def fuse(
    vectors: Sequence[VectorHit], texts: Sequence[TraceHit], graph: Sequence[TraceHit]
) -> list[Candidate]:
    """The three searches' hits (each best first) as one list, the best `FUSED`."""
    scores: defaultdict[str, float] = defaultdict(float)
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    searches: tuple[Sequence[VectorHit | TraceHit], ...] = (vectors, texts, graph)
    for hits in searches:
        for rank, found in enumerate(hits, start=1):
            scores[found.id] += 1 / (RRF_K + rank)
    for hit in texts:
        reasons[hit.id].append(f"text {hit.score:.1f}")
    for hit in graph:
        reasons[hit.id].append(f"mentions {', '.join(hit.names)}")
    best = sorted(scores, key=lambda id_: -scores[id_])[:FUSED]
    return [Candidate(id_, scores[id_], tuple(reasons[id_])) for id_ in best]


def recollect(
    candidates: Sequence[Candidate],
    rows: dict[str, JournalRow],
    vector: NDArray[np.float32],
    *,
    conversation: str | None,
    limit: int,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
) -> Recollection:
    """At most ``limit`` relevant episodes whose rendered block fits ``budget_tokens``.

    ``rows`` are the journal's, by id; a candidate without one is left out.
    """
    relevant = _relevant(candidates, rows, vector, conversation)
    kept: list[RecalledEpisode] = []
    quotes: list[str] = []
    block, tokens = "", 0
    for recalled in _without_repeats(relevant, rows):
        quote = render_quote(recalled.episode)
        longer = render_block([*quotes, quote])
        cost = count_tokens(longer)
        if cost > budget_tokens:
            continue
        kept.append(recalled)
        quotes.append(quote)
        block, tokens = longer, cost
        if len(kept) == limit:
            break
    return Recollection(tuple(kept), block, tokens)


def _relevant(
    candidates: Sequence[Candidate],
    rows: dict[str, JournalRow],
    vector: NDArray[np.float32],
    conversation: str | None,
) -> list[RecalledEpisode]:
    """The candidates above the floor, best first; of equals the newest first."""
    passed = []
    for candidate in candidates:
        row = rows.get(candidate.id)
        if row is None or row.vector is None:
            continue
        cosine = float(row.vector @ vector)
        if cosine < (SUPPORTED if candidate.reasons else ALONE):
            continue
        reasons = [f"vector {cosine:.2f}", *candidate.reasons]
        if row.episode.conversation == conversation:
            reasons.append("same conversation")
        passed.append(RecalledEpisode(row.episode, candidate.score, tuple(reasons)))
    return sorted(passed, key=lambda one: (one.score, one.episode.created), reverse=True)


def _without_repeats(
    ranked: Sequence[RecalledEpisode], rows: dict[str, JournalRow]
) -> list[RecalledEpisode]:
    """Of episodes that say the same the newest, in the place of the best."""
    groups: list[list[RecalledEpisode]] = []
    for recalled in ranked:
        vector = rows[recalled.episode.id].vector
        for group in groups:
            first = rows[group[0].episode.id].vector
            if vector is not None and first is not None and float(vector @ first) >= SAME:
                group.append(recalled)
                break
        else:
            groups.append([recalled])
    return [max(group, key=lambda one: one.episode.created) for group in groups]
