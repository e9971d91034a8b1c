"""Routing with the conversation: a follow-up keeps its dialogue's route unless the topic moved.

A short last turn ("in Rust", "narrower", "et avec un timer ?") says little alone, so it is read
once more behind the turns that it goes on with, and both readings are mixed. How much of the
second depends on the last turn's length alone: the shorter, the more. That is known before
anything is embedded, holds for any weights of the router, and a long turn costs nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routing.advisor import Advisor
from routing.router import MAX_ACTIVE, RouteDecision, Router

SLOPE, MIDDLE = 2.37, 1.907
"""How the share falls with the logarithm of the last turn's words; half at 6.7 words. Fitted on
half of `routing/data/followups.jsonl` (logistic regression of whether the topic moved)."""
LEAST_SHARE = 0.1
"""Under this share the conversation isn't read at all."""
TOPIC_WORDS = 8
"""Earlier turns are gathered from the newest back until they have so many words."""
TOPIC_TURNS = 4
TURN_CHARACTERS = 2000
REPLY_CHARACTERS = 300
CHARACTERS_PER_WORD = 12
"""A word at most: code and scripts without spaces have long ones."""


class Embeds(Protocol):
    """What routing needs of the embedder."""

    def submit(self, texts: Sequence[str]) -> Future[NDArray[np.float32]]: ...


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """The last turn behind the turns it goes on with, and how much of the route that text has."""

    text: str
    share: float


@dataclass(frozen=True, slots=True)
class Heard:
    """All that a decision needs: `vectors` are of the question and, where there is one, of the
    context, shape (1 or 2, 768); `advice` has shape (outputs,)."""

    vectors: NDArray[np.float32]
    context: Context | None
    advice: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Stickiness:
    """What the conversation did: its share, and the first domain without it and with it."""

    share: float
    alone: str
    together: str

    @property
    def effect(self) -> str:
        """In words."""
        if not self.share:
            return "the last turn was read alone"
        if self.alone == self.together:
            return f"the conversation agrees with the last turn: {self.together}"
        return f"the conversation moved the route from {self.alone} to {self.together}"


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision, with the last turn's own vector of shape (768,), and whether there was advice."""

    decision: RouteDecision
    vector: NDArray[np.float32]
    stickiness: Stickiness
    advised: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What the caller sets: `Router.decide` says what each means."""

    threshold: float | None = None
    top_k: int = MAX_ACTIVE
    within: frozenset[str] | None = None


CALIBRATED = Limits()


class Conversations:
    """Routes the last turn of a conversation, from any thread; keeps nothing between calls."""

    def __init__(self, router: Router, embedder: Embeds, advisor: Advisor | None = None) -> None:
        self.router = router
        self._embedder = embedder
        self._advisor = advisor

    def route(
        self, question: str, before: Sequence[Said] = (), limits: Limits = CALIBRATED
    ) -> Routed:
        """Embeds what is needed and decides; raises what `Router.decide` raises.

        Args:
            question: the last user turn.
            before: what was said before it, the oldest first.
        """
        context = context_of(question, before)
        vectors = self._embedder.submit(_texts(question, context)).result()
        return self.decide(Heard(vectors, context, self._advice(question)), limits)

    async def hear(self, question: str, before: Sequence[Said] = ()) -> Heard:
        """Embeds what is needed, without blocking the event loop."""
        context = context_of(question, before)
        vectors = await asyncio.wrap_future(self._embedder.submit(_texts(question, context)))
        advice = await asyncio.to_thread(self._advice, question) if self._advisor else None
        return Heard(vectors, context, advice)

    def decide(self, heard: Heard, limits: Limits = CALIBRATED) -> Routed:
        """Decides; raises what `Router.decide` raises."""
        context, advice = heard.context, heard.advice
        reading = self.router.read(heard.vectors[0])
        alone = together = self.router.first(reading)
        if context:
            reading = reading.mixed(self.router.read(heard.vectors[1]), context.share)
            together = self.router.first(reading)
        if self._advisor and advice is not None:
            reading = replace(reading, log_odds=self._advisor.blend(reading.log_odds, advice))
        decision = self.router.decide(
            reading, threshold=limits.threshold, top_k=limits.top_k, within=limits.within
        )
        share = context.share if context else 0.0
        stickiness = Stickiness(round(share, 4), alone, together)
        return Routed(decision, heard.vectors[0], stickiness, advice is not None)

    def _advice(self, question: str) -> NDArray[np.float32] | None:
        return self._advisor.advice(question) if self._advisor else None


def _texts(question: str, context: Context | None) -> list[str]:
    return [question, context.text] if context else [question]


def asked_last(messages: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[Said, ...]]:
    """The last user turn of messages as OpenAI writes them, and what was said before it.

    Raises:
        ValueError: none has the role user.
        KeyError, TypeError: one isn't {"role", "content"}.
    """
    said = [Said(str(message["role"]), str(message["content"])) for message in messages]
    asked = [place for place, turn in enumerate(said) if turn.role == "user"]
    if not asked:
        raise ValueError("no message has the role user")
    return said[asked[-1]].text, tuple(said[: asked[-1]])


def context_of(question: str, before: Sequence[Said]) -> Context | None:
    """What to read beside the question; None for a first turn and for one that stands alone."""
    topic = _topic(before)
    share = share_of(question)
    if not topic or share < LEAST_SHARE:
        return None
    reply = before[-1].text[:REPLY_CHARACTERS] if before[-1].role == "assistant" else ""
    return Context("\n".join([*topic, *([reply] if reply else []), question]), share)


def share_of(question: str) -> float:
    """The conversation's share of the route, 0 to 1."""
    text = question[:TURN_CHARACTERS].strip()
    words = max(len(text.split()), len(text) / CHARACTERS_PER_WORD, 1)
    return 1 / (1 + math.exp(SLOPE * (math.log(words) - MIDDLE)))


def _topic(before: Sequence[Said]) -> list[str]:
    """The last user turns that together say what it is about, the oldest first."""
    turns: list[str] = []
    words = 0
    for said in reversed(before):
        if said.role != "user" or not said.text.strip():
            continue
        turns.append(said.text[:TURN_CHARACTERS])
        words += len(turns[-1].split())
        if words >= TOPIC_WORDS or len(turns) == TOPIC_TURNS:
            break
    return turns[::-1]
