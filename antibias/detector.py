"""Names the bias of a passage: a linear model over hashed words, word pairs and word classes."""

from __future__ import annotations

import functools
import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antibias.passages import Span, blank, fixed_spans, sentences
from antibias.screen import suspects
from antibias.words import classes_of, tokenize
from kiki.errors import AssetError

TYPES = ("anchoring", "authority", "confirmation", "framing", "recency", "stereotyping")
BUCKETS = 1 << 15
WEIGHTS = Path(__file__).parent / "weights"
WEIGHTS_FILE = "detector.safetensors"
CARD_FILE = "card.json"
MAX_CHARACTERS = 20_000

SHORT = 12
"""Features of the shortest passage that counts in full: one loaded word is no finding."""
FOUND = 0.5
"""Training places each type's working point here; see the card for what it was chosen by."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A passage that reads biased: its type, its text and place, and how sure the model is."""

    type: str
    span: str
    start: int
    end: int
    confidence: float


class Detector:
    """Scores passages of one or two sentences.

    Args:
        weight: shape (BUCKETS, 6), one column a type, in the order of `TYPES`.
        bias: shape (6,).
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self._weight = weight
        self._bias = bias

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> Detector:
        """Raises `AssetError` where the folder holds no detector that fits this version."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / WEIGHTS_FILE
        try:
            card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
            tensors = load_file(path)
            weight = tensors["weight"].astype(np.float32)
            bias = tensors["bias"].astype(np.float32)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise AssetError(
                f"The bias detector can't be read from {path}: {error!r}.",
                fix="Install kiki-gateway again.",
            ) from error
        if card.get("types") != list(TYPES) or weight.shape != (BUCKETS, len(TYPES)):
            raise AssetError(
                f"{path} is of another version: weight {weight.shape}, types {card.get('types')}.",
                fix="Install kiki-gateway again.",
            )
        return cls(weight, bias)

    def find(self, text: str, threshold: float = FOUND) -> tuple[Finding, ...]:
        """The biased passages, each of one or two sentences, in the order of the text.

        A passage is of a type when the screen suspects it of that type and the model is at least
        as sure as ``threshold``. Code, JSON and URLs are not looked at, nor what follows the
        first 20,000 characters.
        """
        text = text[:MAX_CHARACTERS]
        prose = blank(text, fixed_spans(text))
        parts = [self._part(span, span.of(prose)) for span in sentences(prose)]
        found: list[Finding] = []
        for first, part in enumerate(parts):
            found += self._judge(text, part, threshold)
            if first + 1 < len(parts):
                found += self._judge(text, part + parts[first + 1], threshold)
        return _apart(found)

    def _part(self, span: Span, text: str) -> _Part:
        tokens = tokenize(text)
        classes = classes_of(tokens)
        buckets = features(tokens, classes)
        return _Part(span, frozenset(classes), self._weight[buckets].sum(axis=0), len(buckets))

    def _judge(self, text: str, part: _Part, threshold: float) -> list[Finding]:
        """The likeliest of the types that the screen suspects, if it is likely enough."""
        suspected = suspects(part.classes)
        if not suspected:
            return []
        logits = part.total / np.sqrt(max(part.count, SHORT)) + self._bias
        confidences = dict(zip(TYPES, (1.0 / (1.0 + np.exp(-logits))).tolist(), strict=True))
        kind = max(sorted(suspected), key=confidences.__getitem__)
        if confidences[kind] < threshold:
            return []
        place = part.span
        return [Finding(kind, place.of(text), place.start, place.end, confidences[kind])]


@dataclass(frozen=True, slots=True)
class _Part:
    """A sentence, or two that follow each other: word classes, and the sum of the weights."""

    span: Span
    classes: frozenset[str]
    total: NDArray[np.float32]
    count: int

    def __add__(self, other: _Part) -> _Part:
        return _Part(
            Span(self.span.start, other.span.end),
            self.classes | other.classes,
            self.total + other.total,
            self.count + other.count,
        )


@functools.cache
def default_detector() -> Detector:
    """The detector that the package carries, read once."""
    return Detector.load()


def features(tokens: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The buckets of a text's words, neighbouring pairs, and runs of word classes."""
    grams = [*tokens, *(f"{a} {b}" for a, b in itertools.pairwise(tokens))]
    grams += [f"@{name}" for name in classes]
    grams += [f"@{a} {b}" for a, b in itertools.pairwise(classes)]
    crc32 = zlib.crc32
    return [crc32(gram.encode()) % BUCKETS for gram in grams]


def _apart(found: list[Finding]) -> tuple[Finding, ...]:
    """The surest of findings that overlap."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda finding: (-finding.confidence, finding.start)):
        if all(finding.end <= other.start or other.end <= finding.start for other in kept):
            kept.append(finding)
    return tuple(sorted(kept, key=lambda finding: finding.start))
