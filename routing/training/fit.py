"""Fitting the MLP on frozen embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routing.head import Layers

Array = NDArray[np.float32]
HIDDEN = 512


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit; the values are those that did best on prompts from other sources."""

    epochs: int = 60
    batch: int = 256
    rate: float = 2e-3
    decay: float = 0.01
    dropout: float = 0.3
    smoothing: float = 0.05
    mixup: float = 0.4
    noise: float = 0.02
    ranking: float = 2.0


def weights_of(targets: Array) -> Array:
    """A weight for each row, so that a rare output counts nearly as much as a common one.

    Inverse square root of the frequency of the row's rarest output; mean 1.
    """
    counts = np.maximum(targets.sum(axis=0), 1)
    out_of_scope = max(float((targets.sum(axis=1) == 0).sum()), 1.0)
    rarest = np.where(targets > 0, counts, np.inf).min(axis=1)
    frequency = np.where(np.isinf(rarest), out_of_scope, rarest)
    weights = 1 / np.sqrt(frequency)
    result: Array = (weights / weights.mean()).astype(np.float32)
    return result


def fit(vectors: Array, targets: Array, *, seed: int, recipe: Recipe | None = None) -> Layers:
    """Fits the MLP.

    Args:
        vectors: (rows, 768), unit rows.
        targets: (rows, outputs), 1 where the row has the label; all zero is out of scope.
    """
    import torch

    recipe = recipe or Recipe()
    weights = weights_of(targets)
    threads = torch.get_num_threads()
    # Layers this small gain nothing from a second thread, and shared cores make it wait.
    torch.set_num_threads(1)
    try:
        return _fit(vectors, targets, weights, seed, recipe)
    finally:
        torch.set_num_threads(threads)


def _fit(vectors: Array, targets: Array, weights: Array, seed: int, recipe: Recipe) -> Layers:
    """Binary cross-entropy, plus a softmax term that ranks the outputs among themselves.

    Prompts are mixed in pairs (mixup, Zhang et al. 2018, arXiv:1710.09412). The inputs are centred
    and brought to unit variance in all, without which the fit stops short of what it can reach;
    the layers that are returned take the vectors as they come.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(vectors.shape[1], HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Dropout(recipe.dropout),
        torch.nn.Linear(HIDDEN, targets.shape[1]),
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    steps = recipe.epochs * -(-len(vectors) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps)
    centre, scale = vectors.mean(axis=0), np.float32(math.sqrt(vectors.shape[1]))
    smooth = targets * (1 - recipe.smoothing) + recipe.smoothing / targets.shape[1]
    share = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1)
    inputs = (vectors - centre) * scale
    data = [torch.from_numpy(part.astype(np.float32)) for part in (inputs, smooth, share)]
    weighted = torch.from_numpy(weights)
    for _ in range(recipe.epochs):
        order = torch.from_numpy(rng.permutation(len(vectors)))
        for rows in torch.split(order, recipe.batch):
            mix = torch.from_numpy(rng.beta(recipe.mixup, recipe.mixup, (len(rows), 1)))
            mix = torch.maximum(mix, 1 - mix).float()
            partner = rows[torch.from_numpy(rng.permutation(len(rows)))]
            x, wanted, ranked = (mix * p[rows] + (1 - mix) * p[partner] for p in data)
            weight = weighted[rows]
            logits = net(x + recipe.noise * float(scale) * torch.randn_like(x))
            binary = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            ranking = -(ranked * functional.log_softmax(logits, dim=1)).sum(dim=1)
            loss = (weight * (binary.sum(dim=1) + recipe.ranking * ranking)).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    state = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    hidden = state["0.weight"] * scale
    bias = state["0.bias"] - hidden @ centre
    return Layers(hidden, bias, state["3.weight"], state["3.bias"])
