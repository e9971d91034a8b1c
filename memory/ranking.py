"""How well an episode fits a question: what the searches found, and what stands beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from memory.database import to_stamp
from memory.trace import TraceHit
from memory.turns import Turn
from memory.when import Span, spans
from memory.words import entities, fold

# In units of cosine; docs/memory.md says how they were chosen. A turn also counts for what was
# said right before it, often the question that it answers, and right after.
VECTOR_BEFORE, VECTOR_AFTER = 0.2, 0.1
TEXT, TEXT_BEFORE, TEXT_AFTER = 0.04, 0.02, 0.012
GRAPH = 0.005
SPEAKER = 0.2
TIME = 0.3
RECENT = 0.01
RECENT_DAYS = 90
# What happened in a span is also told in the days after it.
TOLD_AFTER_DAYS = 20
LEAST_TIMELY = 0.1
_DAY = 86_400_000_000
_WORD = re.compile(r"\w+")
MAX_LABEL = 48
"""Characters before a line's first colon that can name who speaks."""
BEST = 48
"""So many of the turns are given back."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, with its embedding (float32, unit length), and the times and the names
    (folded) that are in it."""

    text: str
    vector: Floats
    now: datetime
    spans: tuple[Span, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, text: str, vector: Floats, now: datetime | None = None) -> Question:
        seen_from = now or datetime.now(UTC)
        return cls(text, vector, seen_from, tuple(spans(text, seen_from)), tuple(entities(text)))


@dataclass(frozen=True, slots=True)
class Ranked:
    """A turn's score for a question and what it is made of.

    ``vector`` is float32, zeros where the turn has none, ``cosine`` its own; ``shared`` says what
    it has in common with the question by its words, names or time; ``beside`` are the ids of the
    turns next to it.
    """

    turn: Turn
    vector: Floats
    score: float
    cosine: float
    dated: bool
    shared: tuple[str, ...]
    beside: tuple[str, ...]


def rank(
    question: Question,
    turns: Sequence[Turn],
    texts: Sequence[TraceHit],
    graph: Sequence[TraceHit],
) -> list[Ranked]:
    """The `BEST` turns, best first; ``texts`` and ``graph`` are what Trace found."""
    if not turns:
        return []
    places = {turn.id: place for place, turn in enumerate(turns)}
    vectors = _vectors(turns, len(question.vector))
    cosines = vectors @ question.vector
    words, names = _scores(places, texts), _scores(places, graph)
    times = _timeliness(turns, question.spans)
    speakers = _named_speakers(turns, question.names)
    before, after = _neighbours(turns)
    scores = (
        cosines
        + VECTOR_BEFORE * _at(cosines, before)
        + VECTOR_AFTER * _at(cosines, after)
        + TEXT * words
        + TEXT_BEFORE * _at(words, before)
        + TEXT_AFTER * _at(words, after)
        + GRAPH * names
        + SPEAKER * np.array([bool(speaker) for speaker in speakers], np.float32)
        + TIME * times
        + RECENT * _recency(turns, question.now)
    )
    mentioned = {hit.id: hit.names for hit in graph}
    ranked = []
    for place in np.argsort(-scores, kind="stable")[:BEST].tolist():
        turn = turns[place]
        shared = []
        if words[place]:
            shared.append(f"text {words[place]:.1f}")
        if turn.id in mentioned:
            shared.append(f"mentions {', '.join(mentioned[turn.id])}")
        if speakers[place]:
            shared.append(f"said by {speakers[place]}")
        if times[place]:
            shared.append(f"time {times[place]:.2f}")
        beside = [turns[near[place]].id for near in (before, after) if near[place] >= 0]
        ranked.append(
            Ranked(
                turn,
                vectors[place],
                float(scores[place]),
                float(cosines[place]),
                bool(times[place] == 1),
                tuple(shared),
                tuple(beside),
            )
        )
    return ranked


def _vectors(turns: Sequence[Turn], dimension: int) -> Floats:
    """Shape (len(turns), dimension); zeros where a turn has no vector."""
    none = bytes(2 * dimension)
    stored = b"".join(turn.vector or none for turn in turns)
    return np.frombuffer(stored, "<f2").reshape(-1, dimension).astype(np.float32)


def _scores(places: Mapping[str, int], hits: Sequence[TraceHit]) -> Floats:
    scores = np.zeros(len(places), np.float32)
    for hit in hits:
        if hit.id in places:
            scores[places[hit.id]] = hit.score
    return scores


def _timeliness(turns: Sequence[Turn], spans: Sequence[Span]) -> Floats:
    """1 in a span that was asked for, less the longer after it, 0 before."""
    best = np.zeros(len(turns), np.float32)
    if spans:
        created = np.array([turn.created for turn in turns], np.int64)
    for span in spans:
        late = np.maximum(0, created - to_stamp(span.end) + 1) / _DAY
        match = np.exp(-late / TOLD_AFTER_DAYS) * (created >= to_stamp(span.start))
        best = np.maximum(best, match.astype(np.float32))
    best[best < LEAST_TIMELY] = 0
    return best


def _named_speakers(turns: Sequence[Turn], names: Sequence[str]) -> list[str]:
    """Who said each turn of a transcript ("Anna: ...", "[8 May] Anna: ...", "Anna (8 May): ..."),
    where the question names them; else ''."""
    asked = {word for name in names for word in name.split()}
    if not asked:
        return [""] * len(turns)
    return [_named(turn.head, asked) for turn in turns]


def _named(head: str, asked: Set[str]) -> str:
    # A clock's colon has no space behind it.
    label, colon, _ = head.partition(": ")
    if not colon or len(label) > MAX_LABEL:
        return ""
    return " ".join(sorted(asked & set(_WORD.findall(fold(label)))))


def _neighbours(turns: Sequence[Turn]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of the turn before and of the turn after each; -1 where there is none."""
    at = {(turn.conversation, turn.turn): place for place, turn in enumerate(turns)}
    before = [at.get((turn.conversation, turn.turn - 1), -1) for turn in turns]
    after = [at.get((turn.conversation, turn.turn + 1), -1) for turn in turns]
    return np.array(before, np.intp), np.array(after, np.intp)


def _at(values: Floats, places: NDArray[np.intp]) -> Floats:
    """The values at ``places``; 0 at -1."""
    return np.where(places >= 0, values[places], np.float32(0))


def _recency(turns: Sequence[Turn], now: datetime) -> Floats:
    """1 for what was just said, halved every `RECENT_DAYS`."""
    created = np.array([turn.created for turn in turns], np.int64)
    ages = (to_stamp(now) - created) / _DAY
    return np.exp2(-np.maximum(ages, 0) / RECENT_DAYS).astype(np.float32)
