"""The wrapped modules: each computes what its base class does, and adds the active terms.

A module is wrapped by changing its class, in place. Its parameters keep their names and their
place in the tree, and it is still what it was to ``isinstance``. The slot is a plain object, so
mlx's parameter tree doesn't see it. The order of operations and the dtypes are those of mlx_lm's
``LoRALinear``, ``LoRASwitchLinear`` and ``LoRAEmbedding`` (Hu et al. 2021, arXiv:2106.09685): one
adapter alone gives their result bit for bit.
"""

# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchGLU, SwitchLinear

from adapters.engines.mlx.terms import Active, Pair, Term, check_rows
from kiki.errors import EngineError

# From how many (token, expert) pairs on sorting by expert pays; SwitchGLU's own number.
SORT_FROM = 64


@dataclass(frozen=True, slots=True)
class Slot:
    """What ties a module to the active terms. ``index`` is its place in ``Prepared.pairs``."""

    index: int
    active: Active

    def add(
        self,
        y: mx.array,
        update: Callable[[Pair], mx.array],
        dtype: mx.Dtype,
        terms: Sequence[Term] | None = None,
    ) -> mx.array:
        """``y`` plus the weighted sum of the terms' updates, rounded to ``dtype`` once."""
        total = None
        for pair, term in self._pairs(self.active.terms if terms is None else terms):
            z = term.weigh(update(pair))
            total = z if total is None else total + z
        return y if total is None else y + total.astype(dtype)

    def _pairs(self, terms: Sequence[Term]) -> Iterator[tuple[Pair, Term]]:
        for term in terms:
            if (pair := term.pairs[self.index]) is not None:
                yield pair, term


class SlotLinear(Linear):
    """``nn.Linear`` with a slot. Takes and gives (rows, ..., inputs or outputs)."""

    slot: Slot

    def __call__(self, x: mx.array) -> mx.array:
        y = super().__call__(x)
        return add_dense(self.slot, x, y) if self.slot.active.terms else y


class SlotQuantizedLinear(QuantizedLinear):
    """``nn.QuantizedLinear`` with a slot."""

    slot: Slot

    def __call__(self, x: mx.array) -> mx.array:
        y = super().__call__(x)
        return add_dense(self.slot, x, y) if self.slot.active.terms else y


class SlotEmbedding(Embedding):
    """``nn.Embedding`` with a slot, in both its uses."""

    slot: Slot

    def __call__(self, x: mx.array) -> mx.array:
        y = super().__call__(x)
        return add_embedding(self.slot, x, y) if self.slot.active.terms else y

    def as_linear(self, x: mx.array) -> mx.array:
        y = super().as_linear(x)
        return add_unembedding(self.slot, x, y) if self.slot.active.terms else y


class SlotQuantizedEmbedding(QuantizedEmbedding):
    """``nn.QuantizedEmbedding`` with a slot, in both its uses."""

    slot: Slot

    def __call__(self, x: mx.array) -> mx.array:
        y = super().__call__(x)
        return add_embedding(self.slot, x, y) if self.slot.active.terms else y

    def as_linear(self, x: mx.array) -> mx.array:
        y = super().as_linear(x)
        return add_unembedding(self.slot, x, y) if self.slot.active.terms else y


class SlotSwitchLinear(SwitchLinear):
    """``SwitchLinear`` with a slot. ``indices`` (rows, tokens, chosen) says which experts."""

    slot: Slot

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        y: mx.array = super().__call__(x, indices, sorted_indices=sorted_indices)
        return add_experts(self.slot, x, y, indices, sorted_indices)

    def routed(self, x: mx.array, indices: mx.array, terms: Sequence[Term]) -> mx.array:
        """The same for sorted tokens, with terms that were spread over them."""
        y: mx.array = super().__call__(x, indices, sorted_indices=True)
        return add_sorted_experts(self.slot, x, y, indices, terms)


class SlotQuantizedSwitchLinear(QuantizedSwitchLinear):
    """``QuantizedSwitchLinear`` with a slot."""

    slot: Slot

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        y: mx.array = super().__call__(x, indices, sorted_indices=sorted_indices)
        return add_experts(self.slot, x, y, indices, sorted_indices)

    def routed(self, x: mx.array, indices: mx.array, terms: Sequence[Term]) -> mx.array:
        """The same for sorted tokens, with terms that were spread over them."""
        y: mx.array = super().__call__(x, indices, sorted_indices=True)
        return add_sorted_experts(self.slot, x, y, indices, terms)


class SlotSwitchGLU(SwitchGLU):
    """``SwitchGLU`` that knows, when it sorts tokens by expert, which row each came from."""

    active: Active

    def __call__(self, x: mx.array, indices: mx.array) -> mx.array:
        if self.active.rows is None or indices.size < SORT_FROM:
            y: mx.array = super().__call__(x, indices)
            return y
        check_rows(indices.shape[0], self.active.rows)
        indices = mx.stop_gradient(indices)
        chosen = indices.shape[-1]
        flat = indices.flatten()
        order = mx.argsort(flat)
        tokens, experts = order // chosen, flat[order]
        tokens_a_row = indices.size // (indices.shape[0] * chosen)
        terms = [term.spread(tokens // tokens_a_row) for term in self.active.terms]
        x = x.flatten(0, -2)[tokens][:, None]
        up = self.up_proj.routed(x, experts, terms)
        gate = self.gate_proj.routed(x, experts, terms)
        y = self.down_proj.routed(self.activation(up, gate), experts, terms)
        return mx.unflatten(y[mx.argsort(order)], 0, indices.shape).squeeze(-2)


def add_dense(slot: Slot, x: mx.array, y: mx.array) -> mx.array:
    """``y`` plus the terms of a dense module with the input ``x``."""
    return slot.add(y, lambda pair: (x @ pair.a) @ pair.b, x.dtype)


def add_embedding(slot: Slot, ids: mx.array, y: mx.array) -> mx.array:
    """``y`` plus the terms of an embedding, for the token ``ids`` (rows, tokens)."""
    return slot.add(y, lambda pair: pair.a[ids] @ pair.b, y.dtype)


def add_unembedding(slot: Slot, x: mx.array, y: mx.array) -> mx.array:
    """``y`` plus the terms of an embedding that serves as the output layer."""
    return slot.add(y, lambda pair: (x @ pair.b.T) @ pair.a.T, x.dtype)


def add_experts(
    slot: Slot, x: mx.array, y: mx.array, indices: mx.array, sorted_indices: bool
) -> mx.array:
    """``y`` plus the terms of a module with experts.

    Raises EngineError where tokens come sorted, by a block that isn't ``SlotSwitchGLU``, in a
    batch whose rows differ: which row a token belongs to is lost there.
    """
    if not slot.active.terms:
        return y
    if sorted_indices and slot.active.rows is not None:
        raise EngineError(
            "This model sorts tokens by expert in a block that loses the batch's rows.",
            fix="Serve rows with different adapters one after the other on this model.",
        )
    return slot.add(y, lambda pair: gather(x, pair, indices, sorted_indices), x.dtype)


def add_sorted_experts(
    slot: Slot, x: mx.array, y: mx.array, indices: mx.array, terms: Sequence[Term]
) -> mx.array:
    """``y`` (tokens, 1, outputs) plus ``terms``, which were spread over the sorted tokens."""
    return slot.add(y, lambda pair: gather(x, pair, indices, True), x.dtype, terms)


def gather(x: mx.array, pair: Pair, indices: mx.array, sorted_indices: bool) -> mx.array:
    """``x`` through each token's experts of ``a``, then of ``b``."""
    z = mx.gather_mm(x, pair.a, rhs_indices=indices, sorted_indices=sorted_indices)
    return mx.gather_mm(z, pair.b, rhs_indices=indices, sorted_indices=sorted_indices)
