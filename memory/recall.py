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
# Each search gives so many candidates.
CANDIDATES = 24
# Cosines of all-mpnet-base-v2: an episode passes alone from ALONE, or from SUPPORTED when it also
# shares words or names with the question (tests/memory/test_relevance.py measures both).
ALONE = 0.38
SUPPORTED = 0.22
# Two episodes whose user texts are this close say the same; the newest is kept.
SAME = 0.97


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the searches gave, each best first, and the journal's rows for them by id."""

    vectors: Sequence[VectorHit]
    texts: Sequence[TraceHit]
    graph: Sequence[TraceHit]
    rows: dict[str, JournalRow]


def recollect(
    candidates: Candidates,
    vector: NDArray[np.float32],
    *,
    conversation: str | None,
    limit: int,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
) -> Recollection:
    """At most ``limit`` relevant episodes whose rendered block fits ``budget_tokens``."""
    ranked = _without_repeats(_fuse(candidates, vector, conversation), candidates.rows)
    kept: list[RecalledEpisode] = []
    quotes: list[str] = []
    block, tokens = "", 0
    for recalled in ranked:
        longer = render_block([*quotes, render_quote(recalled.episode)])
        cost = count_tokens(longer)
        if cost > budget_tokens:
            continue
        kept.append(recalled)
        quotes.append(render_quote(recalled.episode))
        block, tokens = longer, cost
        if len(kept) == limit:
            break
    return Recollection(tuple(kept), block, tokens)


def _fuse(
    candidates: Candidates, vector: NDArray[np.float32], conversation: str | None
) -> list[RecalledEpisode]:
    """The relevant candidates, best first; of equals the newest first."""
    scores: defaultdict[str, float] = defaultdict(float)
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    supported: set[str] = set()
    searches: tuple[Sequence[VectorHit | TraceHit], ...] = (
        candidates.vectors,
        candidates.texts,
        candidates.graph,
    )
    for hits in searches:
        for rank, found in enumerate(hits, start=1):
            scores[found.id] += 1 / (RRF_K + rank)
    for hit in candidates.texts:
        reasons[hit.id].append(f"text {hit.score:.1f}")
        supported.add(hit.id)
    for hit in candidates.graph:
        reasons[hit.id].append(f"mentions {', '.join(hit.terms)}")
        supported.add(hit.id)
    fused = []
    for id_, row in candidates.rows.items():
        cosine = 0.0 if row.vector is None else float(row.vector @ vector)
        if cosine < (SUPPORTED if id_ in supported else ALONE):
            continue
        why = [f"vector {cosine:.2f}", *reasons[id_]]
        if row.episode.conversation == conversation:
            why.append("same conversation")
        fused.append(RecalledEpisode(row.episode, scores[id_], tuple(why)))
    return sorted(fused, key=lambda one: (one.score, one.episode.created), reverse=True)


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
