"""A prompt's words as evidence: a linear model over hashed word and letter n-grams.

The embedding knows what a prompt means and is vague about rare words: names of tools, error codes,
file endings, French jargon. Those are what this part knows. Beside the MLP it raised top-1 on
prompts held out of the training from 0.70 to 0.75.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 16
LETTERS = (3, 4, 5)
"""Lengths of the pieces of a word; its ends are marked."""
CHARACTERS = 4000
"""Of a longer text the beginning is read."""
STEPS = 127
KEPT_WORDS = 4096
"""Words whose buckets are kept: hashing pieces takes longer than all else, and most words recur."""
KEPT_LETTERS = 20
"""A longer word isn't kept, which bounds the room to some 3 MB."""
_WORD = re.compile(r"[^\W_]+[+#]*|[^\w\s]")

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Weights in 8 bits, one scale an output."""

    codes: NDArray[np.int8]
    """(BUCKETS, outputs)"""
    scale: Vector
    """(outputs,)"""
    rarity: Vector
    """(BUCKETS,), the inverse document frequency; 0 for what training saw once or never"""

    def logits(self, text: str) -> Vector:
        """Shape (outputs,); zeros for a text of which nothing is known."""
        places, values = self.weigh(text)
        result: Vector = (values @ self.codes[places]) * self.scale
        return result

    def weigh(self, text: str) -> tuple[NDArray[np.int64], Vector]:
        """The text's buckets and their values, a vector of length 1 (or 0)."""
        return weighed(text, self.rarity)


def weighed(text: str, rarity: Vector) -> tuple[NDArray[np.int64], Vector]:
    """A text's buckets with (1 + log count) * rarity, brought to length 1."""
    counted = counts(text)
    places = np.fromiter(counted, np.int64, len(counted))
    often = np.fromiter(counted.values(), np.float64, len(counted))
    values = (1 + np.log(often)).astype(np.float32) * rarity[places]
    length = math.sqrt(float(values @ values))
    return places, values / np.float32(length) if length else values


def counts(text: str) -> Counter[int]:
    """How often each bucket occurs: of words, of pairs of words, and of pieces of each word."""
    words = _WORD.findall(_plain(text[:CHARACTERS]))
    found = [_bucket(word) for word in words]
    found += [_bucket(f"{first} {second}") for first, second in pairwise(words)]
    for word in set(words):
        found += _known_pieces(word) if len(word) <= KEPT_LETTERS else _pieces(word)
    return Counter(found)


def _pieces(word: str) -> tuple[int, ...]:
    """The buckets of a word's pieces; a single letter or sign has none."""
    if len(word) < 2:
        return ()
    marked = f"<{word}>"
    return tuple(
        _bucket(f"{marked[at : at + length]}\0")
        for length in LETTERS
        for at in range(len(marked) - length + 1)
    )


_known_pieces = lru_cache(KEPT_WORDS)(_pieces)


def _bucket(feature: str) -> int:
    return zlib.crc32(feature.encode("utf-8", "replace")) % BUCKETS


def _plain(text: str) -> str:
    """Small letters without accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).lower()
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def quantised(weights: Vector, rarity: Vector) -> Lexicon:
    """Weights of shape (BUCKETS, outputs), rounded to 8 bits."""
    scale = np.maximum(np.abs(weights).max(axis=0, initial=0), 1e-9) / np.float32(STEPS)
    return Lexicon(np.rint(weights / scale).astype(np.int8), scale.astype(np.float32), rarity)
