"""From a prompt's vector to at most four domains with weights, or none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RequestError, RoutingError
from routing.card import FIX, Card
from routing.domains import DomainTable, load_domains
from routing.head import (
    WEIGHTS_FILE,
    Head,
    scope_features,
    several_features,
    sigmoid,
)
from routing.lexicon import CHARACTERS
from routing.members import Members

PACKAGED = Path(__file__).with_name("weights")
MAX_ACTIVE = 4
DIMENSION = 768


@dataclass(frozen=True, slots=True)
class DomainScore:
    """An output and the calibrated probability that the prompt is about it."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class ActiveDomain:
    """An output that takes part in the answer.

    `weight` is its share, all shares together are 1; `member` is the domain of a merged output
    that is meant, by the nearest training prompts and the likeliest words, else its only domain.
    """

    name: str
    score: float
    weight: float
    member: str


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """What a prompt is about.

    Attributes:
        scores: all outputs, the highest first.
        active: at most `top_k` of them, the highest first; empty means the base model.
        threshold: the score from which an output was active.
        top_k: how many could be active.
        in_domain: the probability that the prompt is about any of the domains.
        confidence: the highest score among the outputs that could be active.
        clear: one domain is enough: one output is alone, or the prompt is unlikely to need several.
    """

    scores: tuple[DomainScore, ...]
    active: tuple[ActiveDomain, ...]
    threshold: float
    top_k: int
    in_domain: float
    confidence: float
    clear: bool

    @property
    def fallback(self) -> bool:
        """Nothing is active: the base model answers."""
        return not self.active


@dataclass(frozen=True, slots=True)
class Reading:
    """What the head says of a text, before anything is decided.

    `log_odds` has shape (outputs,), `similarities` shape (centres,); `words` is how many words
    the text has, `members` what its words say for each member of a merged output.
    """

    log_odds: NDArray[np.float32]
    similarities: NDArray[np.float32]
    words: int
    members: NDArray[np.float32]

    def mixed(self, other: Reading, share: float) -> Reading:
        """This reading with the other's as a share of it, from 0 to 1."""
        own = np.float32(1 - share)
        others = np.float32(share)
        return Reading(
            own * self.log_odds + others * other.log_odds,
            own * self.similarities + others * other.similarities,
            self.words,
            own * self.members + others * other.members,
        )


class Router:
    """Pure: one vector in, one decision out, from any thread."""

    def __init__(self, card: Card, head: Head, table: DomainTable) -> None:
        self.card = card
        self.table = table
        self._head = head
        self._members = Members(head.index, table)

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        table: DomainTable | None = None,
        *,
        embedding_id: str,
        threshold: float | None = None,
    ) -> Router:
        """Reads weights and card, by default the packaged ones.

        Args:
            embedding_id: the id of the embedder whose vectors will be routed.
            threshold: the score from which an output is active, instead of the calibrated one;
                the out-of-scope gate stays.

        Raises:
            RoutingError: files are missing or damaged, or weights, table and embedder don't
                belong together; names what differs.
        """
        folder = folder or PACKAGED
        table = table or load_domains()
        card = Card.read(folder)
        if card.embedding_id != embedding_id:
            raise RoutingError(
                f"The router in {folder} was trained on vectors of {card.embedding_id!r}, "
                f"the embedder makes those of {embedding_id!r}.",
                fix=FIX,
            )
        _require_same(folder, "outputs", card.outputs, table.outputs)
        _require_same(folder, "domains", card.domains, tuple(d.name for d in table.domains))
        head = Head.read(
            folder / WEIGHTS_FILE,
            sha256=card.weights_sha256,
            outputs=len(card.outputs),
            domains=len(card.domains),
            members=len(table.merged),
        )
        if threshold is not None:
            card = replace(card, threshold=threshold)
        return cls(card, head, table)

    def route(
        self,
        vector: NDArray[np.float32],
        text: str,
        *,
        threshold: float | None = None,
        top_k: int = MAX_ACTIVE,
        within: frozenset[str] | None = None,
    ) -> RouteDecision:
        """Reads a text with its vector, shape (768,), and decides; raises what both raise."""
        return self.decide(self.read(vector, text), threshold=threshold, top_k=top_k, within=within)

    def read(self, vector: NDArray[np.float32], text: str) -> Reading:
        """What the head says of a text and its embedding, of shape (768,).

        Raises:
            RoutingError: the vector isn't one of 768 finite numbers.
        """
        text = text.lstrip()  # as the embedder reads it
        unit = _unit(vector)
        similarities = self._head.index.similarities(unit)
        words = len(text[:CHARACTERS].split())
        log_odds, members = self._head.judge(unit, text)
        return Reading(log_odds, similarities, words, members)

    def first(self, reading: Reading) -> str:
        """The output with the highest score."""
        return self.card.outputs[int(reading.log_odds.argmax())]

    def in_domain(self, reading: Reading) -> float:
        """The probability that the text is about any of the domains."""
        features = scope_features(reading.log_odds, reading.similarities)
        return float(self._head.scope.in_domain(features))

    def decide(
        self,
        reading: Reading,
        *,
        threshold: float | None = None,
        top_k: int = MAX_ACTIVE,
        within: frozenset[str] | None = None,
    ) -> RouteDecision:
        """Decides.

        Args:
            reading: of the prompt.
            threshold: replaces the calibrated one, and with it the out-of-scope gate: the
                caller's number alone then decides what is active.
            top_k: active outputs at most, 1 to 4.
            within: the only outputs that may be active.

        Raises:
            RequestError: threshold or top_k out of range; `param` names it.
            RoutingError: `within` names no output.
        """
        self._check(threshold, top_k, within)
        scores = sigmoid(reading.log_odds)
        in_domain = self.in_domain(reading)
        # Plain floats from here on: an element of an array costs more to touch than the sums.
        ranked: list[int] = np.argsort(-scores, kind="stable").tolist()
        values: list[float] = scores.tolist()
        names = self.card.outputs
        allowed = [place for place in ranked if within is None or names[place] in within]
        gated = threshold is None and in_domain < self.card.scope_threshold
        limit = self.card.threshold if threshold is None else threshold
        chosen = [] if gated else [place for place in allowed if values[place] >= limit][:top_k]
        total = sum(values[place] for place in chosen)
        return RouteDecision(
            scores=tuple(DomainScore(names[place], values[place]) for place in ranked),
            active=tuple(
                ActiveDomain(
                    names[place],
                    values[place],
                    values[place] / total,
                    self._members.meant(names[place], reading.similarities, reading.members),
                )
                for place in chosen
            ),
            threshold=limit,
            top_k=top_k,
            in_domain=in_domain,
            confidence=values[allowed[0]] if allowed else 0.0,
            clear=len(chosen) == 1 or (len(chosen) > 1 and not self._needs_several(reading)),
        )

    def _check(self, threshold: float | None, top_k: int, within: frozenset[str] | None) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise RequestError(
                f"threshold is {threshold}.", param="threshold", fix="Give a number from 0 to 1."
            )
        if not 1 <= top_k <= MAX_ACTIVE:
            raise RequestError(
                f"top_k is {top_k}.", param="top_k", fix=f"Give a number from 1 to {MAX_ACTIVE}."
            )
        unknown = sorted(within.difference(self.card.outputs)) if within else []
        if unknown:
            raise RoutingError(
                f"The router has no output {unknown[0]!r}.",
                fix=f"Outputs: {', '.join(self.card.outputs)}.",
            )

    def _needs_several(self, reading: Reading) -> bool:
        features = several_features(reading.log_odds, np.array(reading.words, np.float32))
        return float(self._head.several.probability(features)) >= self.card.several_threshold


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    wide = vector.astype(np.float64)
    length = math.sqrt(float(wide @ wide)) if vector.shape == (DIMENSION,) else math.nan
    if not math.isfinite(length):
        raise RoutingError(
            f"The router was given a vector of shape {vector.shape} that isn't {DIMENSION} "
            "finite numbers.",
            fix="Give it the embedder's output for one text.",
        )
    return (wide / length if length else wide).astype(np.float32)


def _require_same(folder: Path, what: str, card: tuple[str, ...], table: tuple[str, ...]) -> None:
    if card == table:
        return
    apart = sorted(set(card) ^ set(table))
    detail = f"only one of them has {', '.join(apart)}" if apart else "their order differs"
    raise RoutingError(
        f"The {what} of the router in {folder} aren't those of the domain table: {detail}.",
        fix=FIX,
    )
