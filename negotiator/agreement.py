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
_NUMBER = r"[-+]?\$?\d[\d,]*(?:\.\d+)?"
_STATED = re.compile(
    rf"(?:####|\\boxed\{{|\banswer\s*(?:is|:|=)|\bréponse\s*(?:est|:|=))[\s*$]*({_NUMBER})", re.I
)
_ANY_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w])")
_OPENING = re.compile(r"\W*(yes|no|true|false|oui|non|vrai|faux)\b", re.I)
_AFFIRMATIVE = frozenset({"yes", "true", "oui", "vrai"})
_NEGATION = re.compile(r"\b(?:not|never|cannot|no longer|ne|jamais)\b|n['’]t\b", re.I)
_TOKEN = re.compile(r"\w+|[^\w\s]")

OPPOSED = 0.5
"""The most that two drafts can agree when only one of them negates: embeddings barely see a
"not"."""


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """What a draft comes to: a number, a yes or no, code. ``stated``: named as the answer."""

    number: Decimal | None
    stated: bool
    affirms: bool | None
    code: tuple[str, ...]
    negates: bool


def final_answer(text: str) -> FinalAnswer:
    """Extracts the final answer: the number stated last, else the one in the last sentence."""
    code = tuple(token for block in _CODE.findall(text) for token in _TOKEN.findall(block))
    prose = _CODE.sub(" ", text).strip()
    stated = _STATED.findall(prose)
    opening = _OPENING.match(prose)
    numbers = stated or _ANY_NUMBER.findall(_last_sentence(prose))
    return FinalAnswer(
        number=_decimal(numbers[-1]) if numbers else None,
        stated=bool(stated),
        affirms=opening[1].lower() in _AFFIRMATIVE if opening else None,
        code=code,
        negates=len(_NEGATION.findall(prose)) % 2 == 1,
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
    return min(score, OPPOSED) if a.negates != b.negates else score


async def agreement(texts: Sequence[str], embed: Embed) -> float:
    """The agreement of the two drafts that agree least, 0 to 1; 1 for a single draft."""
    if len(texts) < 2:
        return 1.0
    vectors = await asyncio.to_thread(embed, texts)
    cosines: NDArray[np.float64] = np.asarray(vectors, np.float64) @ np.asarray(vectors).T
    finals = [final_answer(text) for text in texts]
    pairs = itertools.combinations(range(len(texts)), 2)
    return min(similarity(finals[i], finals[j], float(cosines[i, j])) for i, j in pairs)


def _last_sentence(prose: str) -> str:
    lines = prose.splitlines() or [""]
    return re.split(r"(?<=[.!?])\s+", lines[-1].strip())[-1]


def _decimal(number: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"[$,]", "", number)).normalize()
    except InvalidOperation:
        return None
