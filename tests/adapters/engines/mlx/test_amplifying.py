"""Amplified neurons: bit for bit nothing where they aren't, and row by row where they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.base import Module
from mlx_lm.models.llama import Model as Llama
from mlx_lm.models.llama import ModelArgs

from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.tiny import random_adapter, random_model
from adapters.mix import BASE, Mix
from kiki.errors import EngineError

CLOSE = 2e-5
SHARED = "layers.1.mlp.shared_expert.down_proj"
ROUTED = "layers.1.mlp.switch_mlp.down_proj"
DENSE = "layers.1.mlp.down_proj"


def tiny_llama() -> Llama:
    """Two layers, dense."""
    mx.random.seed(5)
    return Llama(
        ModelArgs(
            model_type="llama",
            hidden_size=64,
            num_hidden_layers=2,
            intermediate_size=96,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            vocab_size=320,
        )
    )


def some(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.3


MODELS: dict[str, tuple[Callable[[], Module], tuple[str, ...]]] = {
    "mixture of experts": (partial(random_model, seed=3), (SHARED, ROUTED)),
    "mixture of experts, 4 bits": (partial(random_model, seed=3, bits=4), (SHARED, ROUTED)),
    "dense": (tiny_llama, (DENSE,)),
}


@pytest.fixture(params=MODELS)
def marked(request):
    """A model, its slots with marked neurons, and the marks."""
    make, names = MODELS[request.param]
    model = make()
    slots = Slots.patch(model)
    marks = {name: some(slots.neurons(name)) for name in names}
    slots.mark(marks)
    return model, slots, marks


def tokens(rows: int, length: int) -> mx.array:
    return mx.array(np.random.default_rng(length).integers(0, 320, (rows, length)))


# 20 tokens choose 80 experts: they are sorted. 3 tokens choose 12: they aren't.
@pytest.mark.parametrize("length", [20, 3])
def test_a_gain_of_one_is_the_model_bit_for_bit(marked, length: int) -> None:
    model, slots, _ = marked
    ids = tokens(2, length)
    bare = model(ids)
    slots.use([BASE, BASE], [1.0, 1.0])
    assert mx.array_equal(model(ids), bare)
    slots.use([BASE], [2.0])
    assert not mx.array_equal(model(ids), bare)
    slots.use([BASE])
    assert mx.array_equal(model(ids), bare)


@pytest.mark.parametrize("length", [20, 3])
def test_rows_of_a_batch_are_amplified_or_left_alone_each_by_itself(marked, length: int) -> None:
    model, slots, _ = marked
    ids = tokens(3, length)
    alone = []
    for row, gain in enumerate((1.0, 2.0, 3.0)):
        slots.use([BASE], [gain])
        alone.append(model(ids[row : row + 1]))
    slots.use([BASE] * 3, [1.0, 2.0, 3.0])
    together = model(ids)
    for row in range(3):
        assert np.abs(np.array(together[row] - alone[row][0])).max() < CLOSE


def test_what_is_multiplied_is_what_goes_into_the_block_s_last_module(marked) -> None:
    model, slots, marks = marked
    ids = tokens(1, 4)
    slots.use([BASE], [2.5])
    amplified = model(ids)
    slots.scale(
        {name: mx.array(1.0 + 1.5 * each.astype(np.float32))[None] for name, each in marks.items()},
        rows=1,
    )
    assert np.abs(np.array(model(ids) - amplified)).max() < CLOSE


def test_gains_and_adapters_add_up_in_one_batch() -> None:
    model = random_model(seed=3)
    slots = Slots.patch(model)
    slots.bind("a", random_adapter(model, seed=1, rank=8))
    slots.mark({name: some(slots.neurons(name)) for name in (SHARED, ROUTED)})
    ids, mix = tokens(2, 20), Mix.single("a")
    slots.use([mix], [2.0])
    alone = model(ids[:1])
    slots.use([mix, BASE], [2.0, 1.0])
    assert np.abs(np.array(model(ids)[:1] - alone)).max() < 10 * CLOSE


def test_marks_that_the_model_has_no_place_for_are_refused_by_name() -> None:
    slots = Slots.patch(tiny_llama())
    with pytest.raises(EngineError, match=r"no layers\.9\.mlp\.down_proj"):
        slots.mark({"layers.9.mlp.down_proj": np.ones(96, np.bool_)})
    with pytest.raises(EngineError, match=r"inputs of shape \(95,\)"):
        slots.mark({DENSE: np.ones(95, np.bool_)})
