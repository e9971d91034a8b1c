"""Slots: a model wrapped once, in which adapters come and go without touching its weights."""

# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchGLU, SwitchLinear
from numpy.typing import NDArray

from adapters.engines.mlx.probe import Marks
from adapters.engines.mlx.stored import fits_bfloat16
from adapters.engines.mlx.terms import Active, Pair, Prepared, row_terms, uniform_terms
from adapters.engines.mlx.wrappers import (
    Slot,
    SlotEmbedding,
    SlotLinear,
    SlotQuantizedEmbedding,
    SlotQuantizedLinear,
    SlotQuantizedSwitchLinear,
    SlotSwitchGLU,
    SlotSwitchLinear,
)
from adapters.lora import Lora, LoraWeight
from adapters.mix import BASE, Mix
from kiki.errors import AdapterError, EngineError

WRAPPERS: dict[type[Module], type[Module]] = {
    Linear: SlotLinear,
    QuantizedLinear: SlotQuantizedLinear,
    Embedding: SlotEmbedding,
    QuantizedEmbedding: SlotQuantizedEmbedding,
    SwitchLinear: SlotSwitchLinear,
    QuantizedSwitchLinear: SlotQuantizedSwitchLinear,
}
ADAPTABLE = frozenset((*WRAPPERS, *WRAPPERS.values()))
_IN_LAYERS = re.compile(r"(?:^|\.)(layers\.\d+\..+)$")


@dataclass(frozen=True, slots=True)
class Place:
    """A wrapped module: its index, and its weight's shape. ``experts`` is None for a dense one.

    An embedding takes as many inputs as there are tokens.
    """

    index: int
    inputs: int
    outputs: int
    experts: int | None

    @property
    def neurons(self) -> tuple[int, ...]:
        """The shape of what goes in: (inputs,), or (experts, inputs)."""
        return (self.inputs,) if self.experts is None else (self.experts, self.inputs)


class Slots:
    """The slots of one model. Made by ``patch``; used from the thread that runs the model.

    Adapters are bound under keys that the caller chooses; a new version of an adapter takes a new
    key, and the old one stays until it is unbound. A mix is over keys.
    """

    def __init__(self, active: Active, places: dict[str, Place], dtype: mx.Dtype | None) -> None:
        self._active = active
        self._places = places
        self._dtype = dtype
        self._bound: dict[str, Prepared] = {}
        self._mixes: tuple[Mix, ...] | None = (BASE,)
        self._gains: tuple[float, ...] | None = ()
        self._marks: dict[int, mx.array] = {}

    @classmethod
    def patch(cls, model: Module, dtype: mx.Dtype | None = None) -> Slots:
        """Wrap every linear, expert and embedding module of ``model``, in place.

        Quantise first: a module that is replaced afterwards has no slot. ``dtype`` is what
        adapters are held in; None keeps what each is stored in, as mlx_lm does. On a CPU experts
        are held in float32 whatever is asked: MLX's ``gather_mm`` takes nothing else there.
        Raises EngineError if the model is patched already, or two modules have the same name
        below its layers.
        """
        modules = model.named_modules()
        for path, module in modules:
            if isinstance(getattr(module, "slot", None), Slot):
                raise EngineError(f"{path} has a slot already; a model is patched once.")
        active = Active()
        found = find_modules(model)
        places = {name: place for name, (place, _) in found.items()}
        for place, module in found.values():
            module.slot = Slot(place.index, active)
            module.__class__ = WRAPPERS[type(module)]
        for _, module in modules:
            if type(module) is SwitchGLU:
                module.active = active
                module.__class__ = SlotSwitchGLU
        return cls(active, places, dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that are bound, in the order they came."""
        return tuple(self._bound)

    @property
    def modules(self) -> tuple[str, ...]:
        """The wrapped modules, by the names that adapters use for them."""
        return tuple(self._places)

    def prepare(self, lora: Lora, *, bfloat16: bool = False) -> Prepared:
        """Check the adapter against the model and copy its arrays; nothing is bound yet.

        ``bfloat16`` says that float32 numbers stood in the file in bfloat16. Those that the
        reader had to multiply, and that don't fit any more, are held in float32 all the same.
        Safe in another thread than the model's. Raises AdapterError for a module that the model
        hasn't, for shapes that differ (naming both), and for numbers that aren't finite.
        """
        for name, weight in lora.weights.items():
            check(lora, weight, self._places.get(name))
        pairs: list[Pair | None] = [None] * len(self._places)
        for name, weight in lora.weights.items():
            pairs[self._places[name].index] = self._lay_out(weight, bfloat16)
        arrays = [array for pair in pairs if pair is not None for array in pair]
        # In a batch, rows without the adapter take 0 times its result: 0 only if that is finite.
        if arrays and not mx.stack([mx.isfinite(array).all() for array in arrays]).all():
            raise AdapterError(f"Adapter {lora.name!r} holds numbers that aren't finite.")
        mx.eval(arrays)
        return Prepared(lora.scale, tuple(pairs), sum(array.nbytes for array in arrays))

    def bind(self, key: str, adapter: Lora | Prepared) -> Prepared:
        """Make ``key`` usable in mixes. One that is prepared takes microseconds.

        A key that is bound gets the new arrays from the next ``use`` on. Raises AdapterError as
        ``prepare`` does, and leaves everything as it was.
        """
        prepared = adapter if isinstance(adapter, Prepared) else self.prepare(adapter)
        if len(prepared.pairs) != len(self._places):
            raise AdapterError(f"{key!r} was prepared for another model.")
        if key in self._bound:
            self._mixes = None
        self._bound[key] = prepared
        return prepared

    def unbind(self, key: str) -> None:
        """Forget ``key``; its memory is free once no pass uses it. Raises AdapterError."""
        if key not in self._bound:
            raise AdapterError(f"No adapter {key!r} is bound.")
        if any(key in mix.names for mix in self._mixes or ()):
            self.use((BASE,))
        del self._bound[key]

    def use(self, mixes: Sequence[Mix], gains: Sequence[float] = ()) -> None:
        """Set the rows of the next forward passes: one mix for each, in order.

        One mix, or the same for all rows, holds for any number of rows, and costs no
        multiplication by row. ``use([BASE])`` is the bare model. ``gains`` are what each row's
        marked neurons are multiplied by, at every position of the passes; 1, or none given,
        leaves them. Microseconds, however large the model. Raises UnknownAdapterError, and leaves
        everything as it was.
        """
        wanted, gained = tuple(mixes), tuple(gains) if self._marks else ()
        if wanted == self._mixes and gained == self._gains:
            return
        first = wanted[0] if wanted else BASE
        if all(mix == first for mix in wanted) and len(set(gained)) < 2:
            terms, rows = uniform_terms(first, self._bound), None
        else:
            terms, rows = row_terms(wanted, self._bound), len(wanted)
        if gained != self._gains:
            self._active.scales = self._scales(gained)
        self._active.terms, self._active.rows = terms, rows
        self._mixes, self._gains = wanted, gained

    def mark(self, marks: Marks) -> None:
        """Mark the neurons that ``use`` multiplies by gains: these and no others.

        Raises EngineError for a module that the model hasn't, or whose inputs are others.
        """
        for name, each in marks.items():
            if name not in self._places or self._places[name].neurons != each.shape:
                raise EngineError(f"The model has no {name} with inputs of shape {each.shape}.")
        self._marks = {
            self._places[name].index: mx.array(each.astype(np.float32))
            for name, each in marks.items()
        }

    def scale(self, scales: Mapping[str, mx.array], rows: int) -> None:
        """Run the bare model for ``rows`` rows, with these modules' inputs multiplied.

        Shapes are those of ``scaling``. The next ``use`` ends it.
        """
        self._active.scales = {self._places[name].index: each for name, each in scales.items()}
        self._active.terms, self._active.rows = (), rows
        self._mixes, self._gains = None, None

    def neurons(self, module: str) -> tuple[int, ...]:
        """The shape of a module's inputs: (inputs,), or (experts, inputs)."""
        return self._places[module].neurons

    def _scales(self, gains: tuple[float, ...]) -> dict[int, mx.array]:
        if all(gain == 1.0 for gain in gains):
            return {}
        factors = mx.array(gains[:1] if len(set(gains)) == 1 else gains) - 1.0
        return {
            index: 1.0 + marks[None] * factors.reshape(-1, *(1,) * marks.ndim)
            for index, marks in self._marks.items()
        }

    def _lay_out(self, weight: LoraWeight, bfloat16: bool) -> Pair:
        def copy(array: NDArray[np.floating[Any]]) -> mx.array:
            dtype = self._choose(array, bfloat16, experts=weight.experts is not None)
            return mx.array(np.ascontiguousarray(array), dtype)

        # What is contiguous here is so in mlx_lm: other strides would mean other kernels and bits.
        if weight.experts is None:
            return Pair(copy(weight.a.T), copy(weight.b.T))
        return Pair(copy(weight.a).swapaxes(-1, -2), copy(weight.b).swapaxes(-1, -2))

    def _choose(
        self, array: NDArray[np.floating[Any]], bfloat16: bool, *, experts: bool
    ) -> mx.Dtype | None:
        if experts and mx.default_device().type == mx.DeviceType.cpu:
            return mx.float32
        if self._dtype is None and bfloat16 and fits_bfloat16(array):
            return mx.bfloat16
        return self._dtype


def name_below_layers(path: str) -> str:
    """``model.layers.0.mlp.gate`` -> ``layers.0.mlp.gate``; ``model.embed_tokens`` -> its end."""
    match = _IN_LAYERS.search(path)
    return match[1] if match else path.rsplit(".", 1)[-1]


def find_modules(model: Module) -> dict[str, tuple[Place, Module]]:
    """The modules that an adapter can change, by the names that adapters use, in their order.

    Raises EngineError if two have the same name below the layers.
    """
    found: dict[str, tuple[Place, Module]] = {}
    for path, module in reversed(model.named_modules()):  # it lists the last ones first
        if type(module) not in ADAPTABLE:
            continue
        name = name_below_layers(path)
        if name in found:
            raise EngineError(f"The model has two modules that are called {name}.")
        found[name] = Place(len(found), *measure(module)), module
    return found


def measure(module: Module) -> tuple[int, int, int | None]:
    """A module's inputs, outputs and experts, whether it is quantised or not."""
    if isinstance(module, SwitchLinear | QuantizedSwitchLinear):
        return module.input_dims, module.output_dims, module.num_experts
    rows, columns = module.weight.shape
    if isinstance(module, QuantizedLinear | QuantizedEmbedding):
        columns = columns * 32 // module.bits
    if isinstance(module, Embedding | QuantizedEmbedding):
        return rows, columns, None
    return columns, rows, None


def check(lora: Lora, weight: LoraWeight, place: Place | None) -> None:
    """Raise AdapterError if the update doesn't fit the module at ``place``."""
    who = f"Adapter {lora.name!r} doesn't fit the base model: {weight.module}"
    fix = f"Serve it on the model it was trained for{f', {lora.base}' if lora.base else ''}."
    if place is None:
        raise AdapterError(f"{who} isn't in the model.", fix=fix)
    experts = () if place.experts is None else (place.experts,)
    a, b = (*experts, weight.rank, place.inputs), (*experts, place.outputs, weight.rank)
    if weight.a.shape != a or weight.b.shape != b:
        raise AdapterError(
            f"{who} has A {weight.a.shape} and B {weight.b.shape}; the model needs {a} and {b}.",
            fix=fix,
        )
