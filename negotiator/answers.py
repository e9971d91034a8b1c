"""What a draft comes to: the final answer it states, or that its last words and code give."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

Kind = Literal["option", "number", "yes or no", "phrase"]

PHRASE_WORDS = 8
"""A longer phrase is a sentence, and compared by its meaning."""

CODE_TOKENS = 1000
"""Longer code is compared by lines: comparing is quadratic."""

_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_NUMBER = r"[-+]?\$?\d[\d,]*(?:\.\d+)?"
_STATED = re.compile(
    r"(?:####|\b(?:answer|réponse)(?:\s+is|\s+est|\s*[:=])+)[ \t*$]*(?=(?P<said>[^\n]+))"
    r"|\\boxed\{(?P<boxed>[^{}]*)\}"
    r"|\b(?:option|choice|choix)[ \t]+\(?(?P<option>[A-H])\b",
    re.I,
)
# "A list of names" is no option A.
_OPTION = re.compile(r"\(?([A-H])(?:\)|(?=\s*(?:[.,:;*]|$))|(?<!A)(?=\s))")
_BARE_OPTION = re.compile(r"\(?([A-H])\)?[.:]?")
_ANY_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w])")
_LEADING_NUMBER = re.compile(rf"{_NUMBER}(?![\w])")
_YES_NO = re.compile(r"\W*(yes|no|true|false|oui|non|vrai|faux)\b", re.I)
_AFFIRMATIVE = frozenset({"yes", "true", "oui", "vrai"})
_NEGATION = re.compile(r"\b(?:not|never|cannot|no longer|avoid|ne|jamais)\b|n['’]t\b", re.I)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Stated:
    """An answer that a draft names as its own; ``value`` is comparable within a kind."""

    kind: Kind
    value: str


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """``stated`` is what the draft calls its answer; ``number`` that, or the last sentence's.

    ``code`` are the tokens of all code, or its lines where it is long; ``result`` is what its last
    block ends in, None where it has no block. ``negates`` and ``words`` are the prose's.
    """

    stated: Stated | None
    number: Decimal | None
    affirms: bool | None
    code: tuple[str, ...]
    result: str | None
    negates: bool
    words: frozenset[str]


def final_answer(text: str) -> FinalAnswer:
    """Extracts the final answer; of several that are stated, the last one."""
    blocks = _FENCED.findall(text)
    prose = _FENCED.sub(" ", text).strip()
    inline = _INLINE.findall(prose)
    stated = _stated(prose)
    opening = _YES_NO.match(prose)
    return FinalAnswer(
        stated=stated,
        number=_number_of(stated, prose),
        affirms=opening[1].lower() in _AFFIRMATIVE if opening else None,
        code=_code(blocks + inline),
        result=_last_expression(blocks[-1]) if blocks else None,
        negates=len(_NEGATION.findall(prose)) % 2 == 1,
        words=frozenset(_WORD.findall(prose.lower())),
    )


def _code(blocks: Sequence[str]) -> tuple[str, ...]:
    tokens = tuple(token for block in blocks for token in _TOKEN.findall(block))
    if len(tokens) <= CODE_TOKENS:
        return tokens
    lines = (" ".join(line.split()) for block in blocks for line in block.splitlines())
    return tuple(line for line in lines if line)


def _stated(prose: str) -> Stated | None:
    found = None
    for match in _STATED.finditer(prose):
        said = match["said"] or match["boxed"] or match["option"]
        found = _read(said.strip(" \t*$`")) or found
    bare = _BARE_OPTION.fullmatch(prose)
    return Stated("option", bare[1]) if bare else found


def _read(said: str) -> Stated | None:
    """What stands after "the answer is"; None where it is a sentence of its own."""
    if number := _LEADING_NUMBER.match(said):
        value = _decimal(number[0])
        return Stated("number", str(value)) if value is not None else None
    if option := _OPTION.match(said):
        return Stated("option", option[1])
    if yes_no := _YES_NO.match(said):
        return Stated("yes or no", "yes" if yes_no[1].lower() in _AFFIRMATIVE else "no")
    words = _WORD.findall(re.split(r"[.;!?](?:\s|$)", said)[0].lower())
    return Stated("phrase", " ".join(words)) if 0 < len(words) <= PHRASE_WORDS else None


def _number_of(stated: Stated | None, prose: str) -> Decimal | None:
    if stated is not None:
        return Decimal(stated.value) if stated.kind == "number" else None
    numbers = _ANY_NUMBER.findall(_last_sentence(prose))
    return _decimal(numbers[-1]) if numbers else None


def _last_expression(block: str) -> str:
    """What a block ends in: of Python its last expression or return, else its last line."""
    try:
        statements: list[ast.stmt] = ast.parse(block).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        statements = []
    while statements:
        last = statements[-1]
        if isinstance(last, ast.Expr | ast.Return) and last.value is not None:
            return ast.unparse(last.value)
        statements = getattr(last, "body", [])
    lines = [line.strip() for line in block.splitlines()]
    spoken = [line for line in lines if line and not line.startswith(("#", "--", "//"))]
    return " ".join(spoken[-1].split()) if spoken else ""


def _last_sentence(prose: str) -> str:
    lines = prose.splitlines() or [""]
    return re.split(r"(?<=[.!?])\s+", lines[-1].strip())[-1]


def _decimal(number: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"[$,]", "", number)).normalize()
    except InvalidOperation:
        return None
