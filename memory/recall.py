"""Recall: what was found and ranked, cut to what is relevant, says it once, and fits the prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import numpy as np

from memory.atlas import VectorStore
from memory.episode import Owner, RecalledEpisode, RecalledNote, Recollection
from memory.episode_rows import JournalRow
from memory.journal import Journal
from memory.ranking import Floats, Question, Ranked, rank
from memory.render import render_block, render_note, render_quote
from memory.sharing import bring_in
from memory.trace import GraphStore

# What each search gives at most, before the neighbours of all of it are looked at too.
VECTORS = 24
TEXTS = 28
GRAPH = 12
DATED = 64
SPARE = 6
"""So many more than wanted are read with their texts: some don't fit the budget."""
# Episodes that wait for projection are compared one by one, so only so many of the newest.
MAX_TAIL = 512
# Cosines of all-mpnet-base-v2: an episode passes alone from ALONE, or from SUPPORTED when it also
# shares words or names with the question (tests/memory/test_relevance.py measures both), and from
# BESIDE when it was said in the time asked for, or stands next to one that passes.
ALONE = 0.35
SUPPORTED = 0.28
BESIDE = 0.2
# Two episodes whose user texts are this close say the same; the newest is kept.
SAME = 0.97
LIKENESS = 0.1


def find(
    question: Question,
    owner: Owner,
    journal: Journal,
    *,
    projected: int,
    atlas: VectorStore,
    trace: GraphStore,
    excluded: Collection[str],
) -> list[Ranked]:
    """The owner's episodes that bear on the question, best first.

    ``projected`` is the journal's number up to which Atlas holds every episode, read before this
    is called: one that is projected meanwhile is then found twice, never missed. Raises
    `StoreUnavailableError` when a store is down.
    """
    room = len(excluded)
    vectors = atlas.search(owner, question.vector, VECTORS, excluded)
    texts = trace.search_text(owner, question.text, TEXTS + room)
    graph = trace.neighbours(owner, question.names, GRAPH + room)
    ids = {hit.id for hits in (vectors, texts, graph) for hit in hits}
    bring_in(journal, atlas, owner, ids)
    ids.update(_nearest(journal.tail(owner, projected, MAX_TAIL), question.vector))
    ids.update(journal.within(owner, question.spans, DATED))
    # What the prompt holds already takes no other episode's place.
    turns = journal.around(owner, ids.difference(excluded))
    return rank(question, [turn for turn in turns if turn.id not in excluded], texts, graph)


def relevant(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Those that pass the floors, in their order."""
    passed = {one.turn.id for one in ranked if _passes(one)}
    near = {id_ for one in ranked if one.turn.id in passed for id_ in one.beside}
    return [
        one
        for one in ranked
        if one.turn.id in passed or (one.turn.id in near and one.cosine >= BESIDE)
    ]


def diverse(ranked: Sequence[Ranked], limit: int) -> list[Ranked]:
    """The first ``limit`` by maximal marginal relevance (Carbonell, Goldstein 1998): each is
    weighed against its likeness to those before it. Of episodes that say the same the newest
    stands for all."""
    vectors = np.stack([one.vector for one in ranked]) if ranked else np.empty((0, 0), np.float32)
    scores = np.array([one.score for one in ranked], np.float32)
    likeness = np.zeros(len(ranked), np.float32)
    left = np.ones(len(ranked), np.bool_)
    kept: list[Ranked] = []
    while left.any() and len(kept) < limit:
        best = int(np.argmax(np.where(left, scores - LIKENESS * likeness, -np.inf)))
        # A row at a time: a whole product would wake the threads of the linear algebra.
        alike = vectors @ vectors[best]
        same = left & (alike >= SAME)
        same[best] = True
        group = [ranked[place] for place in np.flatnonzero(same).tolist()]
        kept.append(max(group, key=lambda one: one.turn.created))
        left &= ~same
        likeness = np.maximum(likeness, alike)
    return kept


def read(
    ranked: Sequence[Ranked], owner: Owner, journal: Journal, *, conversation: str | None
) -> list[RecalledEpisode]:
    """The ranked episodes with their texts, and why they came; one that has been deleted since is
    left out. ``conversation`` is the one going on."""
    found = journal.get(owner, [one.turn.id for one in ranked])
    return [
        RecalledEpisode(found[one.turn.id], one.score, _reasons(one, conversation))
        for one in ranked
        if one.turn.id in found
    ]


def recollect(
    found: Sequence[RecalledEpisode],
    notes: Sequence[RecalledNote] = (),
    *,
    limit: int,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
) -> Recollection:
    """The notes, and at most ``limit`` of the episodes, whose block fits ``budget_tokens``; the
    block has the episodes in the order in which they were said."""
    kept: list[RecalledEpisode] = []
    quotes: list[tuple[datetime, str]] = []
    told, lines, block, tokens = _notes(notes, budget_tokens, count_tokens)
    for recalled in found:
        quote = (recalled.episode.created, render_quote(recalled.episode))
        longer = render_block([*lines, *(line for _, line in sorted([*quotes, quote]))])
        cost = count_tokens(longer)
        if cost > budget_tokens:
            continue
        kept.append(recalled)
        quotes.append(quote)
        block, tokens = longer, cost
        if len(kept) == limit:
            break
    return Recollection(tuple(kept), told, block, tokens)


def _notes(
    notes: Sequence[RecalledNote], budget_tokens: int, count_tokens: Callable[[str], int]
) -> tuple[tuple[RecalledNote, ...], list[str], str, int]:
    """The notes that fit, their lines, the block of them and what it costs."""
    kept: list[RecalledNote] = []
    lines: list[str] = []
    block, tokens = "", 0
    for note in notes:
        longer = render_block([*lines, render_note(note)])
        cost = count_tokens(longer)
        if cost <= budget_tokens:
            kept.append(note)
            lines.append(render_note(note))
            block, tokens = longer, cost
    return tuple(kept), lines, block, tokens


def _nearest(tail: Sequence[JournalRow], vector: Floats) -> list[str]:
    """Of the episodes that Atlas may not hold yet those nearest to the question."""
    cosines = {row.episode.id: row.vector @ vector for row in tail if row.vector is not None}
    return sorted(cosines, key=lambda id_: -cosines[id_])[:VECTORS]


def _passes(one: Ranked) -> bool:
    floor = BESIDE if one.dated else SUPPORTED if one.shared else ALONE
    return one.cosine >= floor


def _reasons(one: Ranked, conversation: str | None) -> tuple[str, ...]:
    reasons = [f"vector {one.cosine:.2f}", *one.shared]
    if not _passes(one):
        reasons.append("neighbour")
    if one.turn.conversation == conversation:
        reasons.append("same conversation")
    return tuple(reasons)
