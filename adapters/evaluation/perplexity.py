"""Held-out perplexity of an adapter and its base, in torch: exact, answer token by answer token.

llama.cpp's server gives the log-probabilities of tokens it samples, never those of a prompt, so
the answers are scored as training scores them: on the base's own weights, dequantised to float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.lora import Lora
from kiki.errors import AdapterError

if TYPE_CHECKING:
    from adapters.training.rows import Encoded

LONGEST_ROW = 272  # tokens; what the shipped adapters' cards were measured with
RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class RowLoss:
    """One held-out answer: its tokens, and their summed loss in nats under base and adapter."""

    tokens: int
    base: float
    adapter: float


@dataclass(frozen=True, slots=True)
class Perplexities:
    """Of all answers together, each token counting the same, with the 95 % interval of
    adapter - base from resampling the rows."""

    base: float
    adapter: float
    low: float
    high: float


def row_losses(model: Any, lora: Lora, rows: Sequence[Encoded]) -> Iterator[RowLoss]:
    """Score each row's answer without and with the adapter. Raises AdapterError if it can't fit."""
    for row in rows:
        base, tokens = _loss(model, row)
        with attached(model, lora):
            adapter, _ = _loss(model, row)
        yield RowLoss(tokens, base, adapter)


@contextmanager
def attached(model: Any, lora: Lora) -> Iterator[None]:
    """``model``, a transformers causal LM, with the adapter on; outside it is the base again."""
    import torch

    if not lora.weights:
        raise AdapterError(f"The adapter {lora.name} holds no weights.")
    hooks = []
    try:
        for name, weight in lora.weights.items():
            module = _linear(model, name, lora.name)
            a, b = (torch.from_numpy(x.astype("float32")) for x in (weight.a, weight.b))
            if weight.experts is not None or (
                (a.shape[-1], b.shape[0]) != (module.in_features, module.out_features)
            ):
                raise AdapterError(
                    f"The adapter {lora.name} doesn't fit this base: {name} is "
                    f"{b.shape[0]} x {a.shape[-1]} in it and "
                    f"{module.out_features} x {module.in_features} in the base.",
                    fix="Measure it on the base it was trained for.",
                )
            hooks.append(module.register_forward_hook(_hook(a, b * lora.scale)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def perplexities(losses: Sequence[RowLoss], seed: int) -> Perplexities:
    """Both perplexities, and a paired bootstrap over rows of their difference.

    A row is drawn with its losses under both, so what makes a row hard for either cancels.
    """
    import numpy as np

    tokens, base, adapter = np.array([(r.tokens, r.base, r.adapter) for r in losses]).T
    drawn = np.random.default_rng(seed).integers(len(losses), size=(RESAMPLES, len(losses)))
    counts = tokens[drawn].sum(axis=1)
    gaps = np.exp(adapter[drawn].sum(axis=1) / counts) - np.exp(base[drawn].sum(axis=1) / counts)
    low, high = np.quantile(gaps, (0.025, 0.975))
    of_base, of_adapter = (float(np.exp(x.sum() / tokens.sum())) for x in (base, adapter))
    return Perplexities(of_base, of_adapter, float(low), float(high))


def _loss(model: Any, row: Encoded) -> tuple[float, int]:
    import torch

    from adapters.training.trainer import answer_loss

    with torch.inference_mode():
        mean, tokens = answer_loss(model, [row])
    return mean.item() * tokens, tokens


def _linear(model: Any, name: str, adapter: str) -> Any:
    import torch

    try:
        module = model.model.get_submodule(name)
    except AttributeError:
        module = None
    if not isinstance(module, torch.nn.Linear):
        raise AdapterError(
            f"The adapter {adapter} changes {name}, which is no dense layer of this base.",
            fix="Measure it on the base it was trained for, or with --task on an engine.",
        )
    return module


def _hook(a: Any, b: Any) -> Any:
    def add(_module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        return output + (inputs[0] @ a.T) @ b.T

    return add
