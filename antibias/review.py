"""The second look at an answer: screened, examined, and revised where that makes it better."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from antibias.deframe import (
    PARAGRAPH_CHARS,
    Outcome,
    Passage,
    Revision,
    Spending,
    TokensSpentError,
    deframe,
)
from antibias.detector import FOUND, Finding, default_detector
from antibias.passages import Span, paragraph_around
from antibias.prompt import Embed, Generate
from kiki.errors import KikiError

log = logging.getLogger("kiki.antibias")

Action = Literal["none", "noted", "revised", "rejected revision", "refused"]

REFUSAL = (
    "I have no answer to this that I could call fair: what I wrote leaned on a judgement that the"
    " evidence doesn't carry. Please ask again, naming the facts that the answer should rest on."
)


@dataclass(frozen=True, slots=True)
class ReviewSettings:
    """``threshold``: confidence from which a passage is named; ``revise_from``: from which it is
    revised; ``similarity``: the least cosine of a revision to its passage; ``refuse``: whether an
    answer that stays as sure of being biased is replaced by `REFUSAL`; budgets in tokens and in
    seconds."""

    threshold: float = FOUND
    revise_from: float = 0.9
    similarity: float = 0.75
    refuse: bool = False
    token_budget: int = 3000
    time_budget: float = 60.0


DEFAULT_SETTINGS = ReviewSettings()


@dataclass(frozen=True, slots=True)
class Review:
    """The text that goes out; what was found in the answer, and what is left in the text.

    Each finding's place is in the text that it was found in. ``compared`` says whether the answer
    to the question's opposite framing was written and weighed.
    """

    text: str
    findings: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    action: Action = "none"
    tokens: int = 0
    compared: bool = False
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

    Nothing is embedded unless the screen suspects a sentence, and no call is made unless a finding
    is at least as sure as ``settings.revise_from``. Code, JSON, links and everything outside those
    paragraphs stay as they are. Never raises for an engine's failure: the answer then stays, with
    a note.
    """
    detector = default_detector()
    suspects = detector.suspects(answer)
    if not suspects:
        return Review(answer)
    findings = await asyncio.to_thread(detector.judge, suspects, embed, settings.threshold)
    if not findings:
        return Review(answer)
    passages = _passages(answer, [f for f in findings if f.confidence >= settings.revise_from])
    seen = Review(answer, findings, findings, "noted", note=_names(findings))
    if passages:
        seen = await _revise(question, passages, seen, generate, embed, settings)
    sure = any(f.confidence >= settings.revise_from for f in seen.left)
    if settings.refuse and sure:
        return replace(seen, text=REFUSAL, left=(), action="refused")
    return seen


async def _revise(
    question: str,
    passages: Sequence[Passage],
    seen: Review,
    generate: Generate,
    embed: Embed,
    settings: ReviewSettings,
) -> Review:
    """The review after DeFrame; the same with a note where that came to nothing."""
    spending = Spending(settings.token_budget)
    try:
        async with asyncio.timeout(settings.time_budget):
            outcome = await deframe(
                question,
                seen.text,
                passages,
                generate=generate,
                embed=embed,
                detector=default_detector(),
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
        text = _put_in(seen.text, outcome.revisions)
        left = await asyncio.to_thread(default_detector().find, text, embed, settings.threshold)
        return _told(replace(seen, text=text, left=left, tokens=spending.tokens), outcome)
    return replace(seen, tokens=spending.tokens, note=f"{seen.note}; {reason}")


def _passages(answer: str, findings: Sequence[Finding]) -> list[Passage]:
    """The paragraphs to revise, in order; those too long for a rewrite are left out."""
    held: dict[Span, tuple[Finding, ...]] = {}
    for finding in findings:
        place = paragraph_around(answer, Span(finding.start, finding.end))
        if place and place.end - place.start <= PARAGRAPH_CHARS:
            held[place] = (*held.get(place, ()), finding)
    return [Passage(place, place.of(answer), found) for place, found in held.items()]


def _put_in(answer: str, revisions: Sequence[Revision]) -> str:
    text = answer
    for revision in reversed(revisions):
        if revision.text is not None:
            place = revision.passage.place
            text = text[: place.start] + revision.text + text[place.end :]
    return text


def _told(seen: Review, outcome: Outcome) -> Review:
    rejected = [f"revision rejected: {r.reason}" for r in outcome.revisions if r.text is None]
    note = "; ".join([*([_names(seen.left)] if seen.left else []), *rejected])
    all_rejected = len(rejected) == len(outcome.revisions)
    action: Action = "rejected revision" if all_rejected else "revised"
    return replace(seen, action=action, compared=outcome.compared, note=note)


def _names(findings: Sequence[Finding]) -> str:
    """``may carry framing (0.91), recency (0.77)``"""
    surest: dict[str, float] = {}
    for finding in findings:
        surest[finding.type] = max(finding.confidence, surest.get(finding.type, 0.0))
    return "may carry " + ", ".join(f"{name} ({sure:.2f})" for name, sure in surest.items())
