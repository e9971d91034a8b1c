"""Names the bias of a passage: a linear model over its words and over what it means.

The words are hashed, with their neighbours and their classes; the meaning is the embedding that
the router uses too. Only what the screen lets through is embedded.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antibias.passages import Span, blank, fixed_spans, sentences
from antibias.prompt import Embed
from antibias.screen import Screen
from antibias.words import BUCKETS, bucket, classes_of, tokenize
from kiki.errors import AssetError

TYPES = ("anchoring", "authority", "confirmation", "framing", "recency", "stereotyping")
WEIGHTS = Path(__file__).parent / "weights"
WEIGHTS_FILE = "detector.safetensors"
CARD_FILE = "card.json"
MAX_CHARACTERS = 20_000
MAX_PASSAGES = 16
"""Embedded for one text; those that the screen suspects most."""

FEW = 3
SHORT = 12
"""Features of the shortest passage that counts in full: one loaded word is no finding."""
FOUND = 0.5
"""Training places each type's working point here; see the card for what it was chosen by."""
HOLD = 0.2
"""Confidence from which a question has its answer held back until it was reviewed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A passage that reads biased: its type, its text and place, and how sure the model is."""

    type: str
    span: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Weights:
    """What training makes.

    ``words`` (BUCKETS, 6), ``meaning`` (dimension, 6) and ``bias`` (6,) have a column a type, in
    the order of `TYPES`; ``screen`` is (BUCKETS,). ``embedding_id`` names the embedding.
    """

    words: NDArray[np.float32]
    meaning: NDArray[np.float32]
    bias: NDArray[np.float32]
    screen: NDArray[np.float32]
    screen_bias: float
    embedding_id: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """A sentence, or two that follow each other, that the screen let through.

    ``prose`` is its text with code and links blank; ``score`` is the screen's.
    """

    place: Span
    text: str
    prose: str
    score: float


class Detector:
    """Scores passages of one or two sentences."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._screen = Screen(weights.screen, weights.screen_bias)

    @property
    def embedding_id(self) -> str:
        return self._weights.embedding_id

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> Detector:
        """Raises `AssetError` where the folder holds no detector that fits this version."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / WEIGHTS_FILE
        try:
            card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
            tensors = {name: array.astype(np.float32) for name, array in load_file(path).items()}
        except (OSError, ValueError, SafetensorError) as error:
            raise AssetError(
                f"The bias detector can't be read from {path}: {error!r}.",
                fix="Install kiki-gateway again.",
            ) from error
        shapes = {name: array.shape for name, array in tensors.items()}
        kinds = len(TYPES)
        fits = (
            card.get("types") == list(TYPES)
            and shapes.get("words") == (BUCKETS, kinds)
            and shapes.get("meaning", ())[1:] == (kinds,)
            and shapes.get("bias") == (kinds,)
            and shapes.get("screen") == (BUCKETS,)
            and shapes.get("screen_bias") == (1,)
        )
        if not fits:
            raise AssetError(
                f"{path} is of another version: {shapes}, types {card.get('types')}.",
                fix="Install kiki-gateway again.",
            )
        weights = Weights(
            tensors["words"],
            tensors["meaning"],
            tensors["bias"],
            tensors["screen"],
            float(tensors["screen_bias"][0]),
            str(card.get("embedding")),
        )
        return cls(weights)

    def check(self, embedding_id: str) -> None:
        """Raises `AssetError` where the meanings come from another embedding."""
        if embedding_id != self._weights.embedding_id:
            raise AssetError(
                f"The bias detector was made for the embedding {self._weights.embedding_id}, and "
                f"this is {embedding_id}.",
                fix="Train it anew: kiki antibias train PAIRS",
            )

    def suspects(self, text: str) -> list[Suspect]:
        """The passages to embed. Microseconds a sentence.

        Code, JSON and URLs are not looked at, nor what follows the first 20,000 characters. Two
        sentences make a passage where both are suspected, and in a text of up to `FEW` sentences
        where only both together are, as in questions that lead up to something.
        """
        text = text[:MAX_CHARACTERS]
        prose = blank(text, fixed_spans(text))
        places = list(sentences(prose))
        scores = [self._score(place.of(prose)) for place in places]
        found = [pair for pair in zip(places, scores, strict=True) if pair[1] >= 0]
        for (first, one), (second, other) in itertools.pairwise(zip(places, scores, strict=True)):
            both = Span(first.start, second.end)
            together = len(places) <= FEW and max(one, other) < 0
            if min(one, other) >= 0:
                found.append((both, max(one, other)))
            elif together and (score := self._score(both.of(prose))) >= 0:
                found.append((both, score))
        found.sort(key=lambda pair: -pair[1])
        return [
            Suspect(place, place.of(text), place.of(prose), score)
            for place, score in found[:MAX_PASSAGES]
        ]

    def find(self, text: str, embed: Embed, threshold: float = FOUND) -> tuple[Finding, ...]:
        """The biased passages in the order of the text, each of the likeliest type.

        Embeds what `suspects` gives, so it belongs in a thread where that isn't nothing.
        """
        return self.judge(self.suspects(text), embed, threshold)

    def judge(
        self, suspects: Sequence[Suspect], embed: Embed, threshold: float = FOUND
    ) -> tuple[Finding, ...]:
        """Those of the passages that are at least as likely biased as ``threshold``."""
        if not suspects:
            return ()
        vectors = embed([each.text for each in suspects])
        found: list[Finding] = []
        for each, vector in zip(suspects, vectors, strict=True):
            confidences = self._confidences(each, vector)
            kind = int(confidences.argmax())
            if (sure := float(confidences[kind])) >= threshold:
                place = each.place
                found.append(Finding(TYPES[kind], each.text, place.start, place.end, sure))
        return _apart(found)

    def holds(self, question: str, vector: NDArray[np.floating] | None) -> bool:
        """Whether an answer to this is to be whole before it is sent, so that it can be reviewed.

        ``vector`` is the question's own embedding; without one, what the screen suspects is held.
        """
        suspects = self.suspects(question)
        if not suspects or vector is None:
            return bool(suspects)
        return any(self._confidences(each, vector).max() >= HOLD for each in suspects)

    def _score(self, text: str) -> float:
        return self._screen.score(tokenize(text))

    def _confidences(self, suspect: Suspect, vector: NDArray[np.floating]) -> NDArray[np.float32]:
        """How likely the passage is of each type, (6,); ``vector`` is what it means."""
        tokens = tokenize(suspect.prose)
        grams = features(tokens, classes_of(tokens))
        words = self._weights.words[grams].sum(axis=0) * max(len(grams), SHORT) ** -0.5
        whole = words + vector @ self._weights.meaning + self._weights.bias
        confidences: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-whole))).astype(np.float32)
        return confidences


@functools.cache
def default_detector() -> Detector:
    """The detector that the package carries, read once."""
    return Detector.load()


def screen_prompt(question: str, vector: NDArray[np.floating] | None = None) -> bool:
    """`Detector.holds` of the detector that the package carries."""
    return default_detector().holds(question, vector)


def features(tokens: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The buckets of a text's words, neighbouring pairs, and runs of word classes."""
    grams = [*tokens, *(f"{a} {b}" for a, b in itertools.pairwise(tokens))]
    grams += [f"@{name}" for name in classes]
    grams += [f"@{a} {b}" for a, b in itertools.pairwise(classes)]
    return [bucket(gram) for gram in grams]


def _apart(found: list[Finding]) -> tuple[Finding, ...]:
    """The surest of findings that overlap."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda finding: (-finding.confidence, finding.start)):
        if all(finding.end <= other.start or other.end <= finding.start for other in kept):
            kept.append(finding)
    return tuple(sorted(kept, key=lambda finding: finding.start))
