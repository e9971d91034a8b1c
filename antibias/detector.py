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
from antibias.words import classes_of, tokenize
from kiki.errors import AssetError

TYPES = ("anchoring", "authority", "confirmation", "framing", "recency", "stereotyping")
BUCKETS = 1 << 15
WEIGHTS = Path(__file__).parent / "weights"
WEIGHTS_FILE = "detector.safetensors"
CARD_FILE = "card.json"
MAX_CHARACTERS = 20_000

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

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Confidences of whole texts: shape (len(texts), 6)."""
        sums = [self._sum(text) for text in texts]
        rows = [self._confidences(total, count) for total, count in sums]
        return np.array(rows, np.float32).reshape(len(texts), len(TYPES))

    def find(self, text: str, threshold: float = FOUND) -> tuple[Finding, ...]:
        """The biased passages, each of one or two sentences, in the order of the text.

        Code, JSON and URLs are not looked at, nor what follows the first 20,000 characters.
        """
        text = text[:MAX_CHARACTERS]
        prose = blank(text, fixed_spans(text))
        spans = list(sentences(prose))
        sums = [self._sum(span.of(prose)) for span in spans]
        found: list[Finding] = []
        for first, span in enumerate(spans):
            for last in range(first, min(first + 2, len(spans))):
                total = np.add.reduce([sums[place][0] for place in range(first, last + 1)])
                count = sum(sums[place][1] for place in range(first, last + 1))
                confidences = self._confidences(total, count)
                best = int(confidences.argmax())
                if confidences[best] >= threshold:
                    place = Span(span.start, spans[last].end)
                    found.append(_finding(text, place, best, float(confidences[best])))
        return _apart(found)

    def _sum(self, text: str) -> tuple[NDArray[np.float32], int]:
        buckets = features(text)
        return self._weight[buckets].sum(axis=0), len(buckets)

    def _confidences(self, total: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        logits = total / np.sqrt(max(count, 1)) + self._bias
        confidences: NDArray[np.float32] = 1.0 / (1.0 + np.exp(-logits))
        return confidences


@functools.cache
def default_detector() -> Detector:
    """The detector that the package carries, read once."""
    return Detector.load()


def features(text: str) -> list[int]:
    """The buckets of the text's words, neighbouring pairs, and runs of word classes."""
    tokens = tokenize(text)
    classes = classes_of(tokens)
    grams = tokens + [f"{a} {b}" for a, b in itertools.pairwise(tokens)]
    grams += [f"@{name}" for name in classes]
    grams += [f"@{a} {b}" for a, b in itertools.pairwise(classes)]
    crc32 = zlib.crc32
    return [crc32(gram.encode()) % BUCKETS for gram in grams]


def _finding(text: str, place: Span, kind: int, confidence: float) -> Finding:
    return Finding(TYPES[kind], place.of(text), place.start, place.end, confidence)


def _apart(found: list[Finding]) -> tuple[Finding, ...]:
    """The surest of findings that overlap."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda finding: (-finding.confidence, finding.start)):
        if all(finding.end <= other.start or other.end <= finding.start for other in kept):
            kept.append(finding)
    return tuple(sorted(kept, key=lambda finding: finding.start))
