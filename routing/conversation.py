"""Routing with the conversation: a follow-up keeps its dialogue's route unless the topic moved.

A short last turn ("narrower", "et avec un timer ?") says little alone, so it is read once more
behind the turns that it goes on with, and both readings are mixed. The shorter the last turn and
the lower its own highest score, the larger the share of the second. A long turn, or one that is
plain by itself, costs nothing more; nor does one that names its domain ("now in Rust").
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routing.advisor import Advisor
from routing.domains import DomainTable
from routing.router import MAX_ACTIVE, Reading, RouteDecision, Router

Formula = tuple[float, float, float]
"""A bias, and the weights of the logarithm of the last turn's words and of its highest log-odds.
The share is the sigmoid of the sum."""
FORMULA: Formula = (4.75, -2.12, -0.825)
"""Fitted on half of `routing/data/followups.jsonl`: kiki router fit-follow-ups."""
LOG_ODDS = (-1.0, 3.0)
"""Where the highest log-odds are cut off: beyond, they say no more of whether a turn is plain."""
LANGUAGE = "chat-fr"
"""No topic: any French turn scores high for it."""
LEAST_SHARE = 0.1
"""Under this share the conversation isn't read at all."""
LEAVING_WORDS = 7
"""A turn so long that is about no domain has left the conversation: "who won the match?"."""
LEAVING_SCOPE = 0.5
"""Its in-domain probability, as a part of the limit under which a prompt goes to the base."""
TOPIC_WORDS = 8
"""Earlier turns are gathered from the newest back until they have so many words."""
TOPIC_TURNS = 4
TURN_CHARACTERS = 400
REPLY_CHARACTERS = 150
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
class Heard:
    """All that a decision needs.

    Attributes:
        vector: the last turn's, shape (768,).
        alone: what the router reads from it.
        together: what it reads from the conversation; None where that isn't needed.
        share: of `together` in the route.
        advice: the advisor's logits, shape (outputs,); None where there are none.
    """

    vector: NDArray[np.float32]
    alone: Reading
    together: Reading | None
    share: float
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
        outputs = router.card.outputs
        self._topics = [place for place, name in enumerate(outputs) if name != LANGUAGE]
        self._names = [_names(router.table, output) for output in outputs]

    def route(
        self, question: str, before: Sequence[Said] = (), limits: Limits = CALIBRATED
    ) -> Routed:
        """Embeds what is needed and decides; raises what `Router.decide` raises.

        Args:
            question: the last user turn.
            before: what was said before it, the oldest first.
        """
        vector = self._embedder.submit([question]).result()[0]
        alone = self.router.read(vector, question)
        context = context_of(question, before)
        share = self._share(question, alone) if context else 0.0
        together = None
        if context and share:
            vector_together = self._embedder.submit([context]).result()[0]
            together = self.router.read(vector_together, context)
        return self.decide(Heard(vector, alone, together, share, self._advice(question)), limits)

    async def hear(self, question: str, before: Sequence[Said] = ()) -> Heard:
        """Embeds what is needed, without blocking the event loop."""
        vector = (await asyncio.wrap_future(self._embedder.submit([question])))[0]
        alone = self.router.read(vector, question)
        context = context_of(question, before)
        share = self._share(question, alone) if context else 0.0
        together = None
        if context and share:
            vectors = await asyncio.wrap_future(self._embedder.submit([context]))
            together = self.router.read(vectors[0], context)
        advice = await asyncio.to_thread(self._advice, question) if self._advisor else None
        return Heard(vector, alone, together, share, advice)

    def decide(self, heard: Heard, limits: Limits = CALIBRATED) -> Routed:
        """Decides; raises what `Router.decide` raises."""
        reading, share, advice = heard.alone, 0.0, heard.advice
        if heard.together:
            reading, share = reading.mixed(heard.together, heard.share), heard.share
        stickiness = Stickiness(
            round(share, 4), self.router.first(heard.alone), self.router.first(reading)
        )
        if self._advisor and advice is not None:
            reading = replace(reading, log_odds=self._advisor.blend(reading.log_odds, advice))
        decision = self.router.decide(
            reading, threshold=limits.threshold, top_k=limits.top_k, within=limits.within
        )
        return Routed(decision, heard.vector, stickiness, advice is not None)

    def _share(self, question: str, alone: Reading) -> float:
        """The conversation's share of the route, 0 where the last turn is enough."""
        log_odds = self.unsure(question, alone)
        share = 0.0 if log_odds is None else share_of(words_of(question), log_odds)
        return share if share >= LEAST_SHARE else 0.0

    def unsure(self, question: str, alone: Reading) -> float | None:
        """The highest log-odds of the last turn; None where a rule has it read alone."""
        leaves = LEAVING_SCOPE * self.router.card.scope_threshold
        if words_of(question) >= LEAVING_WORDS and self.router.in_domain(alone) < leaves:
            return None
        first = max(self._topics, key=lambda place: alone.log_odds[place])
        if self._names[first].search(_beginning(question, TURN_CHARACTERS)):
            return None
        return float(alone.log_odds[first])

    def _advice(self, question: str) -> NDArray[np.float32] | None:
        return self._advisor.advice(question) if self._advisor else None


def asked_last(messages: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[Said, ...]]:
    """The last user turn of messages as OpenAI writes them, and what was said before it.

    Raises:
        ValueError: none has the role user.
        KeyError, TypeError: one isn't {"role", "content"}, or its content isn't text.
    """
    said = [Said(str(message["role"]), _text_of(message["content"])) for message in messages]
    asked = [place for place, turn in enumerate(said) if turn.role == "user"]
    if not asked:
        raise ValueError("no message has the role user")
    return said[asked[-1]].text, tuple(said[: asked[-1]])


def _text_of(content: object) -> str:
    """A content's text, of which OpenAI also writes parts, and null beside tool calls."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    parts: list[Any] = (
        [part["text"] for part in content] if isinstance(content, list) else [content]
    )
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("content must be text")
    return "\n".join(parts)


def context_of(question: str, before: Sequence[Said]) -> str | None:
    """The last turn behind the turns that it goes on with; None where there are none."""
    topic = _topic(before)
    if not topic:
        return None
    last = before[-1]
    reply = _beginning(last.text, REPLY_CHARACTERS) if last.role == "assistant" else ""
    return "\n".join([*topic, *([reply] if reply else []), question])


def words_of(text: str) -> float:
    """How many words the text has, 1 at least; of a long one the beginning."""
    text = _beginning(text, TURN_CHARACTERS)
    return max(len(text.split()), len(text) / CHARACTERS_PER_WORD, 1.0)


def share_of(words: float, log_odds: float, formula: Formula = FORMULA) -> float:
    """The conversation's share, 0 to 1, by the last turn's words and its highest log-odds."""
    plain = min(max(log_odds, LOG_ODDS[0]), LOG_ODDS[1])
    bias, per_log_word, per_log_odds = formula
    return 1 / (1 + math.exp(-(bias + per_log_word * math.log(words) + per_log_odds * plain)))


def _beginning(text: str, characters: int) -> str:
    """The text without the white space around it, cut after so many characters."""
    return text.lstrip()[:characters].rstrip()


def _names(table: DomainTable, output: str) -> re.Pattern[str]:
    """Finds what people call the output's domains."""
    words = (word for member in table.members(output) for word in table.domain(member).words)
    either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


def _topic(before: Sequence[Said]) -> list[str]:
    """The last user turns that together say what it is about, the oldest first."""
    turns: list[str] = []
    words = 0
    for said in reversed(before):
        if said.role != "user" or not said.text.strip():
            continue
        turns.append(_beginning(said.text, TURN_CHARACTERS))
        words += len(turns[-1].split())
        if words >= TOPIC_WORDS or len(turns) == TOPIC_TURNS:
            break
    return turns[::-1]
