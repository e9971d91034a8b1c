"""Adapters are held in the numbers they are stored in, which gives mlx_lm's own results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.base import Module
from mlx_lm.tuner.utils import load_adapters

from adapters.adapter import Adapter
from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.stored import fits_bfloat16, is_bfloat16
from adapters.engines.mlx.tiny import random_adapter, random_model
from adapters.folders import read_unchanged
from adapters.forms import write_lora
from adapters.lora import Lora
from adapters.mix import Mix
from tests.adapters.engines.mlx.reference import KINDS, arrays_of, make_model, only
from tests.adapters.engines.mlx.serving import ask, one, started, stats, write_base
from tests.contract.shipped import adapter_at

DENSE = tuple(kind for kind in KINDS if "switch" not in kind)
IDS = mx.array([[1, 2, 3] * 20])


@pytest.fixture(scope="module")
def lora() -> Lora:
    return random_adapter(random_model(seed=3), 9, 8)


def in_bfloat16(lora: Lora, folder: Path) -> Adapter:
    """The adapter as mlx_lm writes one that was trained in bfloat16."""
    write_lora(lora, "mlx", folder)
    rounded = {name: array.astype(mx.bfloat16) for name, array in weights_in(folder).items()}
    mx.save_safetensors(str(folder / "adapters.safetensors"), rounded)
    return adapter_at(folder)


def weights_in(folder: Path) -> dict[str, mx.array]:
    """Its tensors, as mlx_lm reads them."""
    weights = mx.load(str(folder / "adapters.safetensors"))
    assert isinstance(weights, dict)
    return weights


def with_slots(model: Module, adapter: Adapter) -> mx.array:
    """What the patched model says with the adapter."""
    slots = Slots.patch(model)
    slots.bind("a", slots.prepare(read_unchanged(adapter), bfloat16=is_bfloat16(adapter)))
    slots.use([Mix.single("a")])
    logits: mx.array = model(IDS)
    return logits


@pytest.mark.parametrize("base", sorted(make_model))
def test_a_bfloat16_adapter_is_mlx_lms_own_bit_for_bit(
    base: str, lora: Lora, tmp_path: Path
) -> None:
    adapter = in_bfloat16(only(lora, *DENSE), tmp_path / "a")
    assert is_bfloat16(adapter)
    reference = make_model[base]()
    load_adapters(reference, str(adapter.path))
    reference.eval()
    loaded = arrays_of(reference.parameters())
    assert {a.dtype for name, a in loaded.items() if ".lora_" in name} == {mx.bfloat16}
    expected, found = reference(IDS), with_slots(make_model[base](), adapter)
    assert found.dtype == expected.dtype
    assert mx.array_equal(found, expected)


async def test_the_engine_holds_each_file_in_its_own_numbers_unless_it_is_told(
    lora: Lora, tmp_path: Path
) -> None:
    base = write_base(tmp_path, None)
    dense = only(lora, *DENSE)
    numbers = sum(weight.a.size + weight.b.size for weight in dense.weights.values())
    halves = {name: _halves(weight) for name, weight in dense.weights.items()}
    write_lora(replace(dense, name="half", weights=halves), "mlx", tmp_path / "half")
    write_lora(dense, "mlx", tmp_path / "full")
    stored = {
        in_bfloat16(dense, tmp_path / "brain"): 2,
        adapter_at(tmp_path / "half"): 2,
        adapter_at(tmp_path / "full"): 4,
    }
    async with started(base, []) as engine:
        for adapter, itemsize in stored.items():
            assert await engine.set_adapters([adapter]) == ()
            await one(engine, ask(Mix.single(adapter.name), max_tokens=1))
            assert stats(engine).adapters.nbytes == itemsize * numbers
    for dtype, itemsize in (("float32", 4), ("bfloat16", 2)):
        async with started(base, [], adapter_dtype=dtype) as engine:
            for adapter in stored:
                assert await engine.set_adapters([adapter]) == ()
                await one(engine, ask(Mix.single(adapter.name), max_tokens=1))
                assert stats(engine).adapters.nbytes == itemsize * numbers


async def test_experts_are_float32_on_a_cpu_whatever_they_are_stored_or_asked_in(
    lora: Lora, tmp_path: Path
) -> None:
    base = write_base(tmp_path, None)
    adapter = in_bfloat16(lora, tmp_path / "a")
    sizes = {True: 0, False: 0}
    for weight in lora.weights.values():
        sizes[weight.experts is not None] += weight.a.size + weight.b.size
    for dtype in (None, "bfloat16"):
        async with started(base, [adapter], adapter_dtype=dtype) as engine:
            answer = await one(engine, ask(Mix.single("a"), max_tokens=2))
            assert answer.usage.completion_tokens == 2
            assert stats(engine).adapters.nbytes == 4 * sizes[True] + 2 * sizes[False]


def test_numbers_that_the_reader_had_to_multiply_are_not_rounded(
    lora: Lora, tmp_path: Path
) -> None:
    read = read_unchanged(in_bfloat16(only(lora, "mlp.gate"), tmp_path / "a"))
    scaled = replace(
        read,
        weights={n: replace(w, b=w.b * np.float32(0.3)) for n, w in read.weights.items()},
    )
    slots = Slots.patch(random_model(seed=3))
    pairs = [pair for pair in slots.prepare(scaled, bfloat16=True).pairs if pair]
    assert {(pair.a.dtype, pair.b.dtype) for pair in pairs} == {(mx.bfloat16, mx.float32)}


def test_a_file_in_several_kinds_of_numbers_is_held_as_it_is_read(
    lora: Lora, tmp_path: Path
) -> None:
    adapter = in_bfloat16(only(lora, "mlp.gate"), tmp_path / "a")
    weights = weights_in(adapter.path)
    name = next(iter(weights))
    mixed = weights | {name: weights[name].astype(mx.float32)}
    mx.save_safetensors(str(adapter.path / "adapters.safetensors"), mixed)
    assert not is_bfloat16(adapter)


def test_what_fits_bfloat16() -> None:
    exact = np.array([0.0, -1.5, 2.0**-120, np.inf, np.nan, 1e38], np.float32)
    assert not fits_bfloat16(exact)  # 1e38 has more digits
    assert fits_bfloat16(exact[:-1])
    assert fits_bfloat16(np.asfortranarray(np.ones((3, 4), np.float32)).T)
    assert not fits_bfloat16(np.ones(3, np.float16))


def _halves(weight):
    return replace(weight, a=weight.a.astype(np.float16), b=weight.b.astype(np.float16))
