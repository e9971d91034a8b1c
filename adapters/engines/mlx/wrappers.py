"""The wrapped modules: each computes what its base class does, and adds the active terms.

Where the pass has scales for a module, its input is multiplied by them first.

A module is wrapped by changing its class, in place. Its parameters keep their names and their
place in the tree, and it is still what it was to ``isinstance``. The slot is a plain object, so
mlx's parameter tree doesn't see it. The order of operations and the dtypes are those of mlx_lm's
``LoRALinear``, ``LoRASwitchLinear`` and ``LoRAEmbedding`` (Hu et al. 2021, arXiv:2106.09685): one
adapter alone gives their result bit for bit.
"""

# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchGLU, SwitchLinear

from adapters.engines.mlx.scaling import scale_dense, scale_experts, scale_sorted
from adapters.engines.mlx.terms import Active, Pair, Part, Term, check_rows
from kiki.errors import EngineError

# From how many (token, expert) pairs on sorting by expert pays; SwitchGLU's own number.
SORT_FROM = 64
# From how many tokens a row on a dense module's update is computed only for the rows that have
# the adapter. Below, as in decoding, its matrices cost the same to read for one row as for all,
# and picking rows would only add kernels.
PART_FROM = 32


@dataclass(frozen=True, slots=True)
class Slot:
    """What ties a module to the active terms. ``index`` is its place in ``Prepared.pairs``."""

    index: int
    active: Active

    @property
    def scale(self) -> mx.array | None:
        """What the module's input is multiplied by in this pass; None for nothing."""
        return self.active.scales.get(self.index) if self.active.scales else None

    def add(
        self,
        y: mx.array,
        update: Callable[[Pair, Part | None], mx.array],
        dtype: mx.Dtype,
        *,
        by_part: bool,
        terms: Sequence[Term] | None = None,
    ) -> mx.array:
        """``y`` plus the weighted sum of the terms' updates, rounded to ``dtype`` once.

        ``by_part`` computes an adapter's update only for the rows that have it; else for all
        rows, and those without it get 0 times the result. Raises EngineError when ``y`` has
        another number of rows than there are mixes.
        """
        if terms is None:
            terms = self.active.terms
            if self.active.rows is not None:
                check_rows(y.shape[0], self.active.rows)
        total = None
        for term in terms:
            if (pair := term.pairs[self.index]) is None:
                continue
            part = term.part if by_part else None
            z = term.weigh(update(pair, part), part)
            if part is not None:
                total = add_at(y.shape, total, part.at, z)
            else:
                total = z if total is None else total + z
        return y if total is None else y + total.astype(dtype)


class SlotLinear(Linear):
    """``nn.Linear`` with a slot. Takes and gives (rows, ..., inputs or outputs)."""

    slot: Slot

    def __call__(self, x: mx.array) -> mx.array:
        x = scale_dense(self.slot.scale, x)
        y = super().__call__(x)
        return add_dense(self.slot, x, y) if self.slot.active.terms else y


class SlotQuantizedLinear(QuantizedLinear):
    """``nn.QuantizedLinear`` with a slot."""

    slot: Slot

    def __call__(self, x: mx.array) -> mx.array:
        x = scale_dense(self.slot.scale, x)
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
        x = scale_experts(self.slot.scale, x, indices, sorted_indices)
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
        x = scale_experts(self.slot.scale, x, indices, sorted_indices)
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
        flat = indices.flatten()
        order = mx.argsort(flat)
        places = mx.argsort(order)
        experts, tokens = flat[order], order // indices.shape[-1]
        of_rows = places.reshape(self.active.rows, -1)
        rows = order // of_rows.shape[1]
        terms = [term.spread(rows, of_rows) for term in self.active.terms]
        x = x.flatten(0, -2)[tokens][:, None]
        up = self.up_proj.routed(x, experts, terms)
        gate = self.gate_proj.routed(x, experts, terms)
        inner = scale_sorted(self.down_proj.slot.scale, self.activation(up, gate), experts, rows)
        y = self.down_proj.routed(inner, experts, terms)
        return mx.unflatten(y[places], 0, indices.shape).squeeze(-2)


def add_at(shape: tuple[int, ...], total: mx.array | None, at: mx.array, z: mx.array) -> mx.array:
    """``total`` (None: zeros of ``shape``) plus ``z`` at the places ``at`` of its first axis."""
    if total is None:
        return mx.zeros(shape, z.dtype).at[at].add(z)
    return total.astype(mx.result_type(total, z)).at[at].add(z)


def take(x: mx.array, part: Part | None) -> mx.array:
    """The part of ``x``, all of it for None."""
    return x if part is None else x[part.at]


def add_dense(slot: Slot, x: mx.array, y: mx.array) -> mx.array:
    """``y`` plus the terms of a dense module with the input ``x`` (rows, ..., inputs)."""

    def update(pair: Pair, part: Part | None) -> mx.array:
        return (take(x, part) @ pair.a) @ pair.b

    long = x.ndim > 2 and x.shape[-2] >= PART_FROM
    return slot.add(y, update, x.dtype, by_part=long)


def add_embedding(slot: Slot, ids: mx.array, y: mx.array) -> mx.array:
    """``y`` plus the terms of an embedding, for the token ``ids`` (rows, tokens)."""

    def update(pair: Pair, part: Part | None) -> mx.array:
        return pair.a[take(ids, part)] @ pair.b

    return slot.add(y, update, y.dtype, by_part=ids.shape[-1] >= PART_FROM)


def add_unembedding(slot: Slot, x: mx.array, y: mx.array) -> mx.array:
    """``y`` plus the terms of an embedding that serves as the output layer."""

    def update(pair: Pair, part: Part | None) -> mx.array:
        return (take(x, part) @ pair.b.T) @ pair.a.T

    return slot.add(y, update, x.dtype, by_part=False)


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
    return slot.add(y, through(x, indices, sorted_indices), x.dtype, by_part=True)


def add_sorted_experts(
    slot: Slot, x: mx.array, y: mx.array, indices: mx.array, terms: Sequence[Term]
) -> mx.array:
    """``y`` (pairs, 1, outputs) plus ``terms``, which were spread over the sorted pairs."""
    return slot.add(y, through(x, indices, True), x.dtype, by_part=True, terms=terms)


def through(
    x: mx.array, indices: mx.array, sorted_indices: bool
) -> Callable[[Pair, Part | None], mx.array]:
    """What an adapter's experts make of ``x``: each token's own, of ``a`` and then of ``b``."""

    def update(pair: Pair, part: Part | None) -> mx.array:
        chosen, z = take(indices, part), take(x, part)
        z = mx.gather_mm(z, pair.a, rhs_indices=chosen, sorted_indices=sorted_indices)
        return mx.gather_mm(z, pair.b, rhs_indices=chosen, sorted_indices=sorted_indices)

    return update
