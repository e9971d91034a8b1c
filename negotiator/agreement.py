"""How far drafts agree: on their final answer where they state one, else on their meaning."""

from __future__ import annotations

import asyncio
import difflib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negotiator.answers import FinalAnswer, Stated, final_answer

Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to unit vectors, shape (len(texts), dimension); called in a thread."""

AGREED = 0.92
"""Drafts at least this much in agreement agree. Calibrated with all-mpnet-base-v2 on pairs of
drafts that agree and that contradict each other: no contradiction reaches it, and about a third of
the paraphrases do."""

_OPPOSITES = """
higher lower|high low|increase decrease|increases decreases|increased decreased|raise lower
more less|most least|more fewer|larger smaller|large small|greater smaller|bigger smaller
faster slower|fast slow|longer shorter|long short|before after|above below|over under|up down
left right|first last|best worst|better worse|good bad|safe unsafe|safe dangerous|start stop
enable disable|enabled disabled|allow deny|allows denies|allowed forbidden|accept reject
true false|mutable immutable|public private|open closed|open close|possible impossible
legal illegal|valid invalid|include exclude|includes excludes|add remove|always never|all none
commit rollback|push pull|input output|series parallel|positive negative|hot cold|upper lower
maximum minimum|ascending descending|synchronous asynchronous|inner outer|left inner
plus moins|avant après|haut bas|toujours jamais|augmenter diminuer|meilleur pire
"""
OPPOSITES = frozenset(
    frozenset(pair.split()) for line in _OPPOSITES.split("\n") for pair in line.split("|") if pair
)

OPPOSED = 0.5
"""The most that two drafts can agree when only one of them negates, when they differ by a word and
its opposite, or when their code ends in something else: embeddings barely see any of it."""


async def agreement(texts: Sequence[str], embed: Embed) -> float:
    """The agreement of the two drafts that agree least, 0 to 1; 1 for a single draft."""
    if len(texts) < 2:
        return 1.0
    return await asyncio.to_thread(_least, texts, embed)


def _least(texts: Sequence[str], embed: Embed) -> float:
    vectors = embed(texts)
    cosines: NDArray[np.float64] = np.asarray(vectors, np.float64) @ np.asarray(vectors).T
    finals = [final_answer(text) for text in texts]
    pairs = itertools.combinations(range(len(texts)), 2)
    return min(similarity(finals[i], finals[j], float(cosines[i, j])) for i, j in pairs)


def similarity(a: FinalAnswer, b: FinalAnswer, cosine: float) -> float:
    """How far two drafts agree, 0 to 1, given the cosine of their embeddings.

    Different final answers never reach ``AGREED``; equal ones that are stated, a yes or no that
    opens both, or equal blocks of code are 1, unless the prose around them says the opposite.
    """
    score = min(max(cosine, 0.0), 1.0)
    if a.stated and b.stated:
        return _stated(a.stated, b.stated, score)
    if a.number is not None and b.number is not None:
        if a.number != b.number:
            return 0.0
        if a.stated or b.stated:
            return 1.0
    if a.affirms is not None and b.affirms is not None and a.affirms != b.affirms:
        return 0.0
    if a.negates != b.negates or _oppose(a.words, b.words):
        score = min(score, OPPOSED)
    elif _same_code(a, b) or (a.affirms is not None and a.affirms == b.affirms and not a.code):
        return 1.0
    return min(score, _code_alike(a, b))


def _stated(a: Stated, b: Stated, score: float) -> float:
    if a.kind != b.kind:
        return min(score, OPPOSED)
    if a.kind != "phrase":
        return float(a.value == b.value)
    mine, other = set(a.value.split()), set(b.value.split())
    return 1.0 if mine <= other or other <= mine else min(score, OPPOSED)


def _same_code(a: FinalAnswer, b: FinalAnswer) -> bool:
    return a.result is not None and b.result is not None and a.code == b.code


def _code_alike(a: FinalAnswer, b: FinalAnswer) -> float:
    """The share of the code that both have, in order; 1 where neither has any."""
    if not (a.code or b.code):
        return 1.0
    matcher = difflib.SequenceMatcher(None, a.code, b.code, autojunk=False)
    return matcher.ratio() if a.result == b.result else min(matcher.ratio(), OPPOSED)


def _oppose(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether a word that only one draft has is the opposite of one that only the other has."""
    return any(len(pair & (a - b)) == 1 and len(pair & (b - a)) == 1 for pair in OPPOSITES)
