"""How far drafts agree: on their final answer where they state one, else on their meaning."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to unit vectors, shape (len(texts), dimension); called in a thread."""

_CODE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_NUMBER = r"[-+]?\$?\d[\d,]*(?:\.\d+)?"
_STATED = re.compile(
    rf"(?:####|\\boxed\{{|\banswer\s*(?:is|:|=)|\bréponse\s*(?:est|:|=))[\s*$]*({_NUMBER})", re.I
)
_ANY_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w])")
_OPENING = re.compile(r"\W*(yes|no|true|false|oui|non|vrai|faux)\b", re.I)
_AFFIRMATIVE = frozenset({"yes", "true", "oui", "vrai"})
_NEGATION = re.compile(r"\b(?:not|never|cannot|no longer|ne|jamais)\b|n['’]t\b", re.I)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]+")

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
"""The most that two drafts can agree when only one of them negates, or when they differ by a word
and its opposite: embeddings barely see either."""


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """What a draft comes to: a number, a yes or no, code. ``stated``: named as the answer."""

    number: Decimal | None
    stated: bool
    affirms: bool | None
    code: tuple[str, ...]
    negates: bool
    words: frozenset[str]


def final_answer(text: str) -> FinalAnswer:
    """Extracts the final answer: the number stated last, else the one in the last sentence."""
    prose = _CODE.sub(" ", text).strip()
    blocks = _CODE.findall(text) + _INLINE.findall(prose)
    code = tuple(token for block in blocks for token in _TOKEN.findall(block))
    stated = _STATED.findall(prose)
    opening = _OPENING.match(prose)
    numbers = stated or _ANY_NUMBER.findall(_last_sentence(prose))
    return FinalAnswer(
        number=_decimal(numbers[-1]) if numbers else None,
        stated=bool(stated),
        affirms=opening[1].lower() in _AFFIRMATIVE if opening else None,
        code=code,
        negates=len(_NEGATION.findall(prose)) % 2 == 1,
        words=frozenset(_WORD.findall(prose.lower())),
    )


def similarity(a: FinalAnswer, b: FinalAnswer, cosine: float) -> float:
    """How far two drafts agree, 0 to 1, given the cosine of their embeddings."""
    if a.number is not None and b.number is not None:
        if a.number != b.number:
            return 0.0
        if a.stated and b.stated:
            return 1.0
    if a.affirms is not None and b.affirms is not None and a.affirms != b.affirms:
        return 0.0
    score = min(max(cosine, 0.0), 1.0)
    if a.code or b.code:
        matcher = difflib.SequenceMatcher(None, a.code, b.code, autojunk=False)
        return min(score, matcher.ratio())
    return min(score, OPPOSED) if a.negates != b.negates or _oppose(a.words, b.words) else score


async def agreement(texts: Sequence[str], embed: Embed) -> float:
    """The agreement of the two drafts that agree least, 0 to 1; 1 for a single draft."""
    if len(texts) < 2:
        return 1.0
    vectors = await asyncio.to_thread(embed, texts)
    cosines: NDArray[np.float64] = np.asarray(vectors, np.float64) @ np.asarray(vectors).T
    finals = [final_answer(text) for text in texts]
    pairs = itertools.combinations(range(len(texts)), 2)
    return min(similarity(finals[i], finals[j], float(cosines[i, j])) for i, j in pairs)


def _oppose(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether a word that only one draft has is the opposite of one that only the other has."""
    return any(len(pair & (a - b)) == 1 and len(pair & (b - a)) == 1 for pair in OPPOSITES)


def _last_sentence(prose: str) -> str:
    lines = prose.splitlines() or [""]
    return re.split(r"(?<=[.!?])\s+", lines[-1].strip())[-1]


def _decimal(number: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"[$,]", "", number)).normalize()
    except InvalidOperation:
        return None
