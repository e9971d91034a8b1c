"""One question of a benchmark, and the benchmark's rules."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

from kiki.errors import EvaluationError

Split = Literal["even", "odd", "all"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what a right answer is.

    Questions of one ``unit`` belong together (BBQ's four of one scene): they fall on the same
    side of a split and are resampled together. ``expected`` is what `Benchmark.right` compares
    with; ``facts`` is what a benchmark's own scores need.
    """

    id: str
    unit: str
    prompt: str
    expected: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Benchmark(Protocol):
    """How questions are read, answers extracted and judged."""

    name: str
    max_tokens: int

    def read(self, path: Path) -> list[Question]:
        """All questions, in the files' order. Raises EvaluationError with file and line."""

    def extract(self, question: Question, text: str) -> str | None:
        """The final answer that a text comes to; None where it comes to none."""

    def right(self, question: Question, answer: str) -> bool:
        """Whether an extracted answer is right; may take seconds."""

    def ballot(self, answer: str) -> str:
        """What is counted when extracted answers vote: alike for answers that mean the same."""


def read_rows(path: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, each with these fields. Raises EvaluationError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} can't be read: {error}.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise EvaluationError(f"{where} isn't JSON: {error}.") from error
        missing = [name for name in fields if not isinstance(row, dict) or name not in row]
        if missing:
            raise EvaluationError(
                f"{where} has no {missing[0]!r}.", fix=f"A row needs: {', '.join(fields)}."
            )
        rows.append(row)
    if not rows:
        raise EvaluationError(f"{path} holds no question.")
    return rows


def choose(
    questions: Sequence[Question], split: Split, limit: int | None, seed: int
) -> list[Question]:
    """The questions of a half, shuffled by unit; at least ``limit`` of them, in whole units.

    A greater limit keeps the questions of a smaller one and adds to them.
    """
    units: dict[str, list[Question]] = {}
    for question in questions:
        units.setdefault(question.unit, []).append(question)
    start, step = {"even": (0, 2), "odd": (1, 2), "all": (0, 1)}[split]
    half = list(units.values())[start::step]
    random.Random(seed).shuffle(half)
    chosen: list[Question] = []
    for unit in half:
        if limit is not None and len(chosen) >= limit:
            break
        chosen += unit
    return chosen


def digest(path: Path) -> str:
    """Of a file's bytes, or of all JSON lines in a folder."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found = sha256()
    for file in files:
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()
