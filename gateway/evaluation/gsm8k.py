"""GSM8K (Cobbe et al., 2021): grade-school word problems whose answer is a number."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

from gateway.evaluation.question import Question, read_rows
from kiki.errors import EvaluationError

_NUMBER = r"[-+]?\$?\s?\d[\d,]*(?:\.\d+)?"
_STATED = re.compile(rf"(?:####|\\boxed\{{|\banswer\s*(?:is|:|=))[\s:*$]*({_NUMBER})", re.I)
_ANY = re.compile(rf"(?<![\w.]){_NUMBER}")
_SIGNS = re.compile(r"[,$\s+]")


class Gsm8k:
    """Right is the number; how it was reached doesn't count."""

    name = "gsm8k"
    max_tokens = 400

    def read(self, path: Path) -> list[Question]:
        rows = read_rows(path, ("question", "answer"))
        questions = []
        for place, row in enumerate(rows):
            expected = _number(str(row["answer"]).rpartition("####")[2])
            if expected is None:
                raise EvaluationError(f"{path} question {place}: no number follows ####.")
            questions.append(
                Question(
                    id=f"gsm8k/{place}",
                    unit=f"gsm8k/{place}",
                    prompt=(
                        f"{row['question']}\n\nWork it out step by step, briefly. End with a line "
                        '"The answer is NUMBER."'
                    ),
                    expected=expected,
                )
            )
        return questions

    def extract(self, question: Question, text: str) -> str | None:
        """The number stated last as the answer, else the last number."""
        found = _STATED.findall(text) or _ANY.findall(text)
        return _number(found[-1]) if found else None

    def right(self, question: Question, answer: str) -> bool:
        return answer == question.expected

    def ballot(self, answer: str) -> str:
        return answer


def _number(text: str) -> str | None:
    """A number in one spelling: 18, -3, 2.5."""
    try:
        number = Decimal(_SIGNS.sub("", text))
    except InvalidOperation:
        return None
    return f"{number.normalize():f}" if number else "0"
