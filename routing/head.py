"""The router's head: an MLP 768-512-N with sigmoid outputs, and the index of training prompts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RoutingError

WEIGHTS_FILE = "router.safetensors"
NEIGHBOURS = 5
"""Similarity to the five nearest training prompts separates unseen domains best of what was
tried (AUROC 0.93 against 0.71 to 0.88 for the highest probability)."""
BLOCK = 256
"""Centres that are compared at once."""
LOGIT_LIMIT = 30.0
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
    """Platt scaling (Platt 1999), one slope and one offset an output."""

    slope: Vector
    offset: Vector

    def log_odds(self, logits: Vector) -> Vector:
        """What the sigmoid makes probabilities of, in the same shape."""
        result: Vector = self.slope * logits + self.offset
        return result

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
class Head:
    """All that is learned, as it lies in the weights' file."""

    layers: Layers
    calibration: Calibration
    index: Index
    scope: Scope

    def save(self, path: Path) -> None:
        """Writes the safetensors file; the index takes half precision."""
        from safetensors.numpy import save_file

        save_file(
            {
                "hidden.weight": self.layers.hidden,
                "hidden.bias": self.layers.hidden_bias,
                "out.weight": self.layers.out,
                "out.bias": self.layers.out_bias,
                "calibration.slope": self.calibration.slope,
                "calibration.offset": self.calibration.offset,
                "index.vectors": self.index.vectors.astype(np.float16),
                "index.domains": self.index.domains,
                "scope.weights": self.scope.weights,
                "scope.bias": np.array([self.scope.bias], np.float32),
            },
            path,
        )

    @classmethod
    def read(cls, path: Path, *, sha256: str, outputs: int, domains: int) -> Head:
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
                Calibration(tensors["calibration.slope"], tensors["calibration.offset"]),
                Index(tensors["index.vectors"].astype(np.float32), tensors["index.domains"]),
                Scope(tensors["scope.weights"], float(tensors["scope.bias"][0])),
            )
        except KeyError as error:
            raise RoutingError(f"{path} lacks the tensor {error}.", fix=FIX) from error
        head._check(path, outputs, domains)
        return head

    def _check(self, path: Path, outputs: int, domains: int) -> None:
        if self.layers.out.shape[0] != outputs or self.calibration.slope.shape != (outputs,):
            raise RoutingError(
                f"{path} has {self.layers.out.shape[0]} outputs, its card names {outputs}.", fix=FIX
            )
        if self.index.domains.max(initial=0) >= domains:
            raise RoutingError(f"{path}: its index names a domain past {domains}.", fix=FIX)


_PARTS = (("hidden", "weight"), ("hidden", "bias"), ("out", "weight"), ("out", "bias"))


def sigmoid(logits: Vector) -> Vector:
    """Logistic function, in float32 and without overflow."""
    clipped = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    return (1 / (1 + np.exp(-clipped))).astype(np.float32, copy=False)


def scope_features(scores: Vector, similarities: Vector) -> Vector:
    """What tells in from out: the highest score's log-odds and the nearest centres' cosine.

    Args:
        scores: (..., outputs), calibrated.
        similarities: (..., centres).

    Returns:
        Shape (..., 2).
    """
    best = np.clip(scores.max(axis=-1), 1e-6, 1 - 1e-6)
    nearest = np.partition(similarities, -NEIGHBOURS, axis=-1)[..., -NEIGHBOURS:]
    features = np.stack([np.log(best / (1 - best)), nearest.mean(axis=-1)], axis=-1)
    result: Vector = features.astype(np.float32, copy=False)
    return result
