"""Binding: what doesn't fit is refused whole, versions live side by side, errors name things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Thread

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.qwen3_5_moe import Model

from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.terms import Prepared
from adapters.engines.mlx.tiny import random_adapter
from adapters.lora import Lora, LoraWeight
from adapters.mix import BASE, Mix
from kiki.errors import AdapterError, EngineError, UnknownAdapterError
from tests.adapters.engines.mlx.reference import make_model, only

IDS = mx.array([[1, 2, 3, 4]])


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model["float32"]()


@pytest.fixture(scope="module")
def slots(model: Model) -> Slots:
    return Slots.patch(model)


@pytest.fixture(scope="module")
def lora(model: Model) -> Lora:
    return random_adapter(model, 1, 4)


@pytest.fixture(autouse=True)
def _nothing_bound(slots: Slots) -> None:
    for key in slots.names:
        slots.unbind(key)


def changed(lora: Lora, name: str, change: Callable[[LoraWeight], LoraWeight]) -> Lora:
    return replace(lora, weights={**lora.weights, name: change(lora.weights[name])})


def test_a_module_that_the_model_has_not_is_named(slots: Slots, lora: Lora) -> None:
    strange = replace(lora.weights["layers.3.self_attn.q_proj"], module="layers.9.mlp.fc")
    wrong = replace(lora, weights={**lora.weights, strange.module: strange})
    with pytest.raises(AdapterError, match=r"'random-1'.*layers\.9\.mlp\.fc isn't in the model"):
        slots.bind("a", wrong)
    assert slots.names == ()


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("layers.3.self_attn.q_proj", r"A \(4, 64\).*needs \(4, 128\) and \(256, 4\)"),
        ("layers.0.mlp.switch_mlp.up_proj", r"A \(8, 4, 64\).*needs \(8, 4, 128\) and"),
    ],
)
def test_shapes_that_differ_are_both_named(
    slots: Slots, lora: Lora, name: str, needed: str
) -> None:
    wrong = changed(lora, name, lambda weight: replace(weight, a=weight.a[..., :64]))
    with pytest.raises(AdapterError, match=rf"{name} has {needed}") as raised:
        slots.bind("a", wrong)
    assert raised.value.fix
    assert slots.names == ()


def test_a_dense_update_for_experts_is_refused(slots: Slots, lora: Lora) -> None:
    wrong = changed(
        lora,
        "layers.0.mlp.switch_mlp.up_proj",
        lambda weight: replace(weight, a=weight.a[0], b=weight.b[0]),
    )
    with pytest.raises(AdapterError, match=r"the model needs \(8, 4, 128\)"):
        slots.bind("a", wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(slots: Slots, lora: Lora, bad: float) -> None:
    def spoil(weight: LoraWeight) -> LoraWeight:
        b = weight.b.copy()
        b[0, 0] = bad
        return replace(weight, b=b)

    with pytest.raises(AdapterError, match="aren't finite"):
        slots.bind("a", changed(lora, "layers.0.mlp.gate", spoil))
    assert slots.names == ()


def test_a_failed_bind_leaves_the_old_version(model: Model, slots: Slots, lora: Lora) -> None:
    slots.bind("a", lora)
    slots.use([Mix.single("a")])
    before = model(IDS)
    mx.eval(before)
    wrong = changed(lora, "layers.0.mlp.gate", lambda weight: replace(weight, a=weight.a[:, 1:]))
    with pytest.raises(AdapterError):
        slots.bind("a", wrong)
    slots.use([BASE])
    slots.use([Mix.single("a")])
    assert mx.array_equal(model(IDS), before)


def test_an_adapter_may_leave_modules_out(model: Model, slots: Slots, lora: Lora) -> None:
    slots.bind("whole", lora)
    slots.bind("part", only(random_adapter(model, 2, 16), "mlp.gate"))
    slots.use([Mix.of({"whole": 0.5, "part": 0.5})])
    one = model(IDS)
    slots.use([Mix.of({"whole": 0.5}), Mix.of({"whole": 0.5, "part": 0.5})])
    assert mx.allclose(model(mx.concatenate([IDS, IDS]))[1:], one, atol=1e-4)


def test_versions_of_an_adapter_live_side_by_side(model: Model, slots: Slots, lora: Lora) -> None:
    slots.bind("a@1", lora)
    slots.use([Mix.single("a@1")])
    old = model(IDS)
    mx.eval(old)
    slots.bind("a@2", random_adapter(model, 2, 8))
    slots.use([Mix.single("a@1"), Mix.single("a@2")])
    both = model(mx.concatenate([IDS, IDS]))
    assert mx.allclose(both[:1], old, atol=1e-4)
    assert not mx.allclose(both[1:], old, atol=1e-2)


def test_a_key_bound_anew_serves_the_new_arrays(model: Model, slots: Slots, lora: Lora) -> None:
    slots.bind("a", lora)
    slots.use([Mix.single("a")])
    old = model(IDS)
    mx.eval(old)
    slots.bind("a", random_adapter(model, 2, 8))
    slots.use([Mix.single("a")])
    assert not mx.allclose(model(IDS), old, atol=1e-2)


def test_unbinding_what_is_active_gives_the_base(model: Model, slots: Slots, lora: Lora) -> None:
    slots.use([BASE])
    base = model(IDS)
    slots.bind("a", lora)
    slots.use([Mix.single("a")])
    slots.unbind("a")
    assert mx.array_equal(model(IDS), base)
    assert slots.names == ()
    with pytest.raises(AdapterError, match="No adapter 'a' is bound"):
        slots.unbind("a")


def test_an_unknown_key_is_refused_and_changes_nothing(
    model: Model, slots: Slots, lora: Lora
) -> None:
    slots.bind("a", lora)
    slots.use([Mix.single("a")])
    before = model(IDS)
    for mixes in ([Mix.single("b")], [Mix.single("a"), Mix.single("b")]):
        with pytest.raises(UnknownAdapterError, match="'b' is bound; bound are: a"):
            slots.use(mixes)
        assert mx.array_equal(model(IDS), before)


def test_rows_without_mixes_are_refused(model: Model, slots: Slots, lora: Lora) -> None:
    slots.bind("a", lora)
    slots.use([Mix.single("a"), BASE])
    for rows in (1, 3):
        with pytest.raises(EngineError, match=f"{rows} rows, and mixes were set for 2"):
            model(mx.repeat(IDS, rows, axis=0))
    slots.use([BASE])


def test_one_mix_for_all_rows_fits_any_batch(model: Model, slots: Slots, lora: Lora) -> None:
    slots.bind("a", lora)
    slots.use([Mix.single("a"), Mix.single("a")])
    assert model(mx.repeat(IDS, 3, axis=0)).shape[0] == 3


def test_a_model_is_patched_once(model: Model) -> None:
    with pytest.raises(EngineError, match="has a slot already"):
        Slots.patch(model)


def test_an_adapter_prepared_elsewhere_is_bound_at_once(
    model: Model, slots: Slots, lora: Lora
) -> None:
    made: list[Prepared] = []
    thread = Thread(target=lambda: made.append(slots.prepare(lora)))
    thread.start()
    thread.join()
    slots.bind("there", made[0])
    slots.bind("here", lora)
    slots.use([Mix.single("there")])
    there = model(IDS)
    slots.use([Mix.single("here")])
    assert mx.array_equal(model(IDS), there)
    assert made[0].nbytes == sum(w.a.nbytes + w.b.nbytes for w in lora.weights.values())
