"""Routing with the conversation: a follow-up keeps its dialogue's route unless the topic moved.

A short last turn ("in Rust", "narrower", "et avec un timer ?") says little alone, so it is read
once more behind the turns that it goes on with, and both readings are mixed. How much of the
second depends on the last turn's length alone: the shorter, the more. That is known before
anything is embedded, holds for any weights of the router, and a long turn costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


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
    """A decision, with the last turn's own vector of shape (768,)."""

    decision: RouteDecision
    vector: NDArray[np.float32]
    stickiness: Stickiness


class Conversations:
    """Routes the last turn of a conversation, from any thread; keeps nothing between calls."""

    def __init__(self, router: Router, embedder: Embeds) -> None:
        self.router = router
        self._embedder = embedder

    def route(
        self,
        question: str,
        before: Sequence[Said] = (),
        *,
        threshold: float | None = None,
        top_k: int = MAX_ACTIVE,
        within: frozenset[str] | None = None,
    ) -> Routed:
        """Embeds what is needed and decides; the arguments and errors are `Router.route`'s.

        Args:
            question: the last user turn.
            before: what was said before it, the oldest first.
        """
        context = context_of(question, before)
        texts = [question, context.text] if context else [question]
        vectors = self._embedder.embed(texts)
        return self.decide(vectors, context, threshold=threshold, top_k=top_k, within=within)

    def decide(
        self,
        vectors: NDArray[np.float32],
        context: Context | None,
        *,
        threshold: float | None = None,
        top_k: int = MAX_ACTIVE,
        within: frozenset[str] | None = None,
    ) -> Routed:
        """Decides from the vectors of the question and, where there is one, of the context."""
        reading = self.router.read(vectors[0])
        alone = together = self.router.first(reading)
        if context:
            reading = reading.mixed(self.router.read(vectors[1]), context.share)
            together = self.router.first(reading)
        decision = self.router.decide(reading, threshold=threshold, top_k=top_k, within=within)
        share = context.share if context else 0.0
        return Routed(decision, vectors[0], Stickiness(share, alone, together))


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
