"""The drafts of a panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft, the adapters that wrote it, and the tokens it cost."""

    text: str
    authors: tuple[str, ...]
    tokens: int


def merge(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Joins drafts that differ in nothing but white space, in the order of their first author.

    The first draft's own text is kept; authors and tokens add up.
    """
    merged: dict[str, Candidate] = {}
    for candidate in candidates:
        key = " ".join(candidate.text.split())
        if first := merged.get(key):
            candidate = Candidate(
                first.text,
                tuple(dict.fromkeys(first.authors + candidate.authors)),
                first.tokens + candidate.tokens,
            )
        merged[key] = candidate
    return tuple(merged.values())
