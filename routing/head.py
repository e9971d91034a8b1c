"""The router's head: an MLP 768-512-N and a lexicon under sigmoid outputs, and an index of the
training prompts."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RoutingError
from routing.lexicon import BUCKETS, Lexicon

WEIGHTS_FILE = "router.safetensors"
NEIGHBOURS = 5
"""Similarity to the five nearest training prompts separates unseen domains best of what was
tried (AUROC 0.93 against 0.71 to 0.88 for the highest probability)."""
BLOCK = 512
"""Centres that are compared at once, as many as the hidden layer has rows."""
LOGIT_LIMIT = 30.0
SURE = 13.8
"""Log-odds beyond which a score, in float32, says no more: one in a million."""
MOST_WORDS = 200
"""More say no more about how many domains a prompt needs."""
FIX = "Train the router again: kiki router train"

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layers:
    """The MLP: `out @ relu(hidden @ x + hidden_bias) + out_bias`."""

    hidden: Vector
    """(512, 768)"""
    hidden_bias: Vector
    out: Vector
    """(outputs, 512)"""
    out_bias: Vector

    def logits(self, vectors: Vector) -> Vector:
        """Shape (..., outputs) for vectors of shape (..., 768)."""
        hidden = np.maximum(vectors @ self.hidden.T + self.hidden_bias, 0)
        result: Vector = hidden @ self.out.T + self.out_bias
        return result


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling (Platt 1999) on an output's logit and on its lead over all the others.

    Without the lead the highest score says less than it could: a logit that nothing comes near is
    right more often than the same one in company. One set of numbers serves all outputs: a pair
    for each ranked other people's prompts worse (top-1 0.929 against 0.938).
    """

    slope: float
    lead: float
    offset: float

    def log_odds(self, logits: Vector) -> Vector:
        """What the sigmoid makes probabilities of, in the shape (..., outputs) of the logits."""
        odds = self.slope * logits + self.lead * leads(logits) + self.offset
        return odds.astype(np.float32, copy=False)

    def scores(self, logits: Vector) -> Vector:
        """Probabilities of the same shape."""
        return sigmoid(self.log_odds(logits))


@dataclass(frozen=True, slots=True)
class Index:
    """Centres of the training prompts of each domain."""

    vectors: Vector
    """(centres, 768), unit rows"""
    domains: NDArray[np.int64]
    """(centres,), each centre's place among the table's domains"""

    def similarities(self, vectors: Vector) -> Vector:
        """Cosines of shape (..., centres) for unit vectors of shape (..., 768)."""
        # A larger product goes to BLAS's threads, whose waiting for a busy core took 24 ms of 24.
        parts = [
            vectors @ self.vectors[start : start + BLOCK].T
            for start in range(0, len(self.vectors), BLOCK)
        ]
        return np.concatenate(parts, axis=-1)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whether a prompt is about any domain: a logistic model over `scope_features`."""

    weights: Vector
    bias: float

    def in_domain(self, features: Vector) -> Vector:
        """Probabilities of shape (...,) for features of shape (..., 2)."""
        return sigmoid(features @ self.weights + np.float32(self.bias))


@dataclass(frozen=True, slots=True)
class Several:
    """Whether a prompt needs several domains: a logistic model over `several_features`."""

    weights: Vector
    bias: float

    def probability(self, features: Vector) -> Vector:
        """Shape (...,) for features of shape (..., 4)."""
        return sigmoid(features @ self.weights + np.float32(self.bias))


@dataclass(frozen=True, slots=True)
class Head:
    """All that is learned, as it lies in the weights' file."""

    layers: Layers
    lexicon: Lexicon
    """For the outputs and, after them, for the members of merged ones."""
    calibration: Calibration
    index: Index
    scope: Scope
    several: Several

    def judge(self, vector: Vector, text: str) -> tuple[Vector, Vector]:
        """What the head says of a text and its embedding of shape (768,).

        Returns:
            The calibrated log-odds, shape (outputs,), and the lexicon's word on the members of
            merged outputs, shape (members,).
        """
        outputs = len(self.layers.out_bias)
        words = self.lexicon.logits(text)
        log_odds = self.calibration.log_odds(self.layers.logits(vector) + words[:outputs])
        return log_odds, words[outputs:]

    def save(self, path: Path) -> None:
        """Writes the safetensors file; the index takes half precision."""
        from safetensors.numpy import save_file

        save_file(
            {
                "hidden.weight": self.layers.hidden,
                "hidden.bias": self.layers.hidden_bias,
                "out.weight": self.layers.out,
                "out.bias": self.layers.out_bias,
                "lexicon.codes": self.lexicon.codes,
                "lexicon.scale": self.lexicon.scale,
                "lexicon.rarity": self.lexicon.rarity,
                "calibration": np.array(astuple(self.calibration), np.float32),
                "index.vectors": self.index.vectors.astype(np.float16),
                "index.domains": self.index.domains,
                "scope.weights": self.scope.weights,
                "scope.bias": np.array([self.scope.bias], np.float32),
                "several.weights": self.several.weights,
                "several.bias": np.array([self.several.bias], np.float32),
            },
            path,
        )

    @classmethod
    def read(cls, path: Path, *, sha256: str, outputs: int, domains: int, members: int) -> Head:
        """Reads the file whose hash the card records.

        Raises:
            RoutingError: the file is missing or another one, or its shapes don't fit.
        """
        from safetensors.numpy import load

        try:
            data = path.read_bytes()
        except OSError as error:
            raise RoutingError(
                f"The router's weights {path} can't be read: {error}.", fix=FIX
            ) from error
        got = hashlib.sha256(data).hexdigest()
        if got != sha256:
            raise RoutingError(
                f"{path} isn't the file its card describes: sha256 {got}, expected {sha256}.",
                fix=FIX,
            )
        try:
            tensors = load(data)
            head = cls(
                Layers(*(tensors[f"{layer}.{part}"] for layer, part in _PARTS)),
                Lexicon(*(tensors[f"lexicon.{part}"] for part in ("codes", "scale", "rarity"))),
                Calibration(*tensors["calibration"].tolist()),
                Index(tensors["index.vectors"].astype(np.float32), tensors["index.domains"]),
                Scope(tensors["scope.weights"], float(tensors["scope.bias"][0])),
                Several(tensors["several.weights"], float(tensors["several.bias"][0])),
            )
        except KeyError as error:
            raise RoutingError(f"{path} lacks the tensor {error}.", fix=FIX) from error
        head._check(path, outputs, domains, members)
        return head

    def _check(self, path: Path, outputs: int, domains: int, members: int) -> None:
        if self.layers.out.shape[0] != outputs:
            raise RoutingError(
                f"{path} has {self.layers.out.shape[0]} outputs, its card names {outputs}.", fix=FIX
            )
        if self.lexicon.codes.shape != (BUCKETS, outputs + members):
            raise RoutingError(
                f"{path}: its lexicon has the shape {self.lexicon.codes.shape}, not "
                f"{(BUCKETS, outputs + members)}.",
                fix=FIX,
            )
        if self.index.domains.max(initial=0) >= domains:
            raise RoutingError(f"{path}: its index names a domain past {domains}.", fix=FIX)


_PARTS = (("hidden", "weight"), ("hidden", "bias"), ("out", "weight"), ("out", "bias"))


def sigmoid(logits: Vector) -> Vector:
    """Logistic function, in float32 and without overflow."""
    clipped = np.minimum(np.maximum(logits, -LOGIT_LIMIT), LOGIT_LIMIT)
    return (1 / (1 + np.exp(-clipped))).astype(np.float32, copy=False)


def leads(logits: Vector) -> Vector:
    """Each logit less the logarithm of the sum of the others' exponentials; same shape."""
    highest = logits.max(axis=-1, keepdims=True)
    parts = np.exp(logits - highest)
    others = np.maximum(parts.sum(axis=-1, keepdims=True) - parts, 1e-9)
    result: Vector = logits - highest - np.log(others)
    return result


def several_features(log_odds: Vector, words: Vector) -> Vector:
    """What tells a prompt for one domain from one for several.

    Args:
        log_odds: (..., outputs), calibrated.
        words: (...,), how many words the prompt has.

    Returns:
        The three highest log-odds and the logarithm of the words, shape (..., 4).
    """
    highest = -np.sort(-log_odds, axis=-1)[..., :3]
    counted = np.log1p(np.minimum(words, MOST_WORDS))[..., None]
    return np.concatenate([highest, counted], axis=-1).astype(np.float32, copy=False)


def scope_features(log_odds: Vector, similarities: Vector) -> Vector:
    """What tells in from out: the highest score's log-odds and the nearest centres' cosine.

    Args:
        log_odds: (..., outputs), calibrated.
        similarities: (..., centres).

    Returns:
        Shape (..., 2).
    """
    features = np.empty((*log_odds.shape[:-1], 2), np.float32)
    features[..., 0] = np.minimum(np.maximum(log_odds.max(axis=-1), -SURE), SURE)
    nearest = np.partition(similarities, -NEIGHBOURS, axis=-1)[..., -NEIGHBOURS:]
    features[..., 1] = nearest.sum(axis=-1) / NEIGHBOURS
    return features
