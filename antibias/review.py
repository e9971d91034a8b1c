"""The second look at an answer: screened, examined, and revised where that makes it better."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from antibias.deframe import (
    PARAGRAPH_CHARS,
    Embed,
    Passage,
    Revision,
    Spending,
    TokensSpentError,
    deframe,
)
from antibias.detector import FOUND, Detector, Finding, default_detector
from antibias.passages import Span, paragraph_around
from antibias.prompt import Generate
from antibias.screen import screen_text
from kiki.errors import KikiError

log = logging.getLogger("kiki.antibias")

Action = Literal["none", "noted", "revised", "rejected revision"]


@dataclass(frozen=True, slots=True)
class ReviewSettings:
    """``threshold``: confidence from which a passage is named; ``revise_from``: from which it is
    revised; ``similarity``: the least cosine of a revision to its passage; budgets in tokens and
    in seconds."""

    threshold: float = FOUND
    revise_from: float = 0.9
    similarity: float = 0.75
    token_budget: int = 3000
    time_budget: float = 60.0


DEFAULT_SETTINGS = ReviewSettings()


@dataclass(frozen=True, slots=True)
class Review:
    """The text that goes out and what was found in the answer; places are the answer's own."""

    text: str
    findings: tuple[Finding, ...] = ()
    action: Action = "none"
    tokens: int = 0
    note: str = ""


async def review(
    question: str,
    answer: str,
    *,
    generate: Generate,
    embed: Embed,
    settings: ReviewSettings = DEFAULT_SETTINGS,
) -> Review:
    """Looks at an answer, and revises by DeFrame the paragraphs that read biased.

    No call is made unless a finding is at least as sure as ``settings.revise_from``. Code, JSON,
    links and everything outside those paragraphs stay as they are. Never raises for an engine's
    failure: the answer then stays, with a note.
    """
    if not screen_text(answer):
        return Review(answer)
    detector = default_detector()
    findings = detector.find(answer, settings.threshold)
    if not findings:
        return Review(answer)
    passages = _passages(answer, [f for f in findings if f.confidence >= settings.revise_from])
    if not passages:
        return Review(answer, findings, "noted", note=_names(findings))
    spending = Spending(settings.token_budget)
    try:
        async with asyncio.timeout(settings.time_budget):
            revisions = await deframe(
                question,
                passages,
                generate=generate,
                embed=embed,
                detector=detector,
                threshold=settings.threshold,
                similarity=settings.similarity,
                spending=spending,
            )
    except TokensSpentError:
        reason = "the revision is over the token budget"
    except TimeoutError:
        reason = f"no revision within {settings.time_budget:g} s"
    except KikiError as error:
        log.warning("The revision failed: %s", error)
        reason = error.message
    else:
        return _apply(answer, findings, revisions, spending.tokens, detector, settings)
    return Review(answer, findings, "noted", spending.tokens, f"{_names(findings)}; {reason}")


def _passages(answer: str, findings: Sequence[Finding]) -> list[Passage]:
    """The paragraphs to revise, in order; those too long for a rewrite are left out."""
    held: dict[Span, tuple[Finding, ...]] = {}
    for finding in findings:
        place = paragraph_around(answer, Span(finding.start, finding.end))
        if place and place.end - place.start <= PARAGRAPH_CHARS:
            held[place] = (*held.get(place, ()), finding)
    return [Passage(place, place.of(answer), found) for place, found in held.items()]


def _apply(
    answer: str,
    findings: tuple[Finding, ...],
    revisions: Sequence[Revision],
    tokens: int,
    detector: Detector,
    settings: ReviewSettings,
) -> Review:
    text = answer
    for revision in reversed(revisions):
        if revision.text is not None:
            place = revision.passage.place
            text = text[: place.start] + revision.text + text[place.end :]
    rejected = [f"revision rejected: {r.reason}" for r in revisions if r.text is None]
    left = detector.find(text, settings.threshold)
    note = "; ".join([*([_names(left)] if left else []), *rejected])
    action: Action = "rejected revision" if len(rejected) == len(revisions) else "revised"
    return Review(text, findings, action, tokens, note)


def _names(findings: Sequence[Finding]) -> str:
    """``may carry framing (0.91), recency (0.77)``"""
    surest: dict[str, float] = {}
    for finding in findings:
        surest[finding.type] = max(finding.confidence, surest.get(finding.type, 0.0))
    return "may carry " + ", ".join(f"{name} ({sure:.2f})" for name, sure in surest.items())
