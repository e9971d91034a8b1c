"""Slots give the base bit for bit, mlx_lm's own LoRA bit for bit, and mixes as weighted sums."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx_lm.models.qwen3_5_moe import Model
from mlx_lm.models.switch_layers import SwitchMLP
from mlx_lm.tuner.lora import LoRAEmbedding

from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.tiny import random_adapter
from adapters.lora import Lora, LoraWeight
from adapters.mix import BASE, MAX_ADAPTERS, Mix
from kiki.errors import EngineError
from tests.adapters.engines.mlx.reference import (
    KINDS,
    arrays_of,
    dequantized,
    make_model,
    only,
    scaled,
    with_dense_sum,
    with_mlx_lora,
)

# Float32 sums in another order: logits of about 1, over four layers.
CLOSE = 2e-4
ADAPTERS = 5
# 40 tokens choose 160 experts: they are sorted. 3 tokens choose 12: they aren't.
LENGTHS = (40, 3)


def tokens(rows: int, length: int) -> mx.array:
    return mx.array(np.random.default_rng(length).integers(0, 320, (rows, length)))


def difference(one: mx.array, other: mx.array) -> float:
    return peak(one - other)


def peak(array: mx.array) -> float:
    return float(np.abs(np.array(array)).max())


def same_bits(one: mx.array, other: mx.array) -> bool:
    return one.dtype == other.dtype and bool(mx.array_equal(one, other))


@pytest.fixture(scope="module")
def loras() -> list[Lora]:
    model = make_model["float32"]()
    ranks = (16, 4, 8, 1, 16)
    return [
        scaled(random_adapter(model, seed, rank), scale)
        for seed, rank, scale in zip(range(ADAPTERS), ranks, (1.0, 2.0, 0.7, 1.0, 1.3), strict=True)
    ]


@pytest.fixture(scope="module", params=("float32", "4-bit"))
def patched(request: pytest.FixtureRequest, loras: list[Lora]) -> tuple[Model, Slots, str]:
    """A model with all adapters bound as a0, a1 ..."""
    model = make_model[request.param]()
    slots = Slots.patch(model)
    for index, lora in enumerate(loras):
        slots.bind(f"a{index}", lora)
    return model, slots, request.param


@pytest.mark.parametrize("kind", sorted(make_model))
def test_with_nothing_active_the_base_answers_bit_for_bit(kind: str, loras: list[Lora]) -> None:
    model, bare = make_model[kind](), make_model[kind]()
    slots = Slots.patch(model)
    for length in LENGTHS:
        expected = bare(tokens(2, length))
        assert same_bits(model(tokens(2, length)), expected)
        slots.bind("a", loras[0])
        slots.use([Mix.single("a"), BASE])
        assert not same_bits(model(tokens(2, length)), expected)
        slots.use([BASE])
        assert same_bits(model(tokens(2, length)), expected)


def test_with_nothing_active_the_graph_is_the_bases(tmp_path: Path, loras: list[Lora]) -> None:
    model, bare = make_model["4-bit"](), make_model["4-bit"]()
    Slots.patch(model).bind("a", loras[0])
    sizes = []
    for name, each in (("slots", model), ("bare", bare)):
        mx.export_to_dot(str(tmp_path / name), each(tokens(2, 40)))
        sizes.append(len((tmp_path / name).read_text().splitlines()))
    assert sizes[0] == sizes[1]


def test_the_parameters_are_untouched(tmp_path: Path, loras: list[Lora]) -> None:
    model, bare = make_model["4-bit"](), make_model["4-bit"]()
    slots = Slots.patch(model)
    slots.bind("a", loras[0])
    slots.use([Mix.single("a")])
    names = list(arrays_of(bare.parameters()))
    assert list(arrays_of(model.parameters())) == names
    trainable = list(arrays_of(bare.trainable_parameters()))
    assert list(arrays_of(model.trainable_parameters())) == trainable
    model.save_weights(str(tmp_path / "weights.safetensors"))
    bare.load_weights(str(tmp_path / "weights.safetensors"))
    model.load_weights(str(tmp_path / "weights.safetensors"))
    slots.use([BASE])
    assert same_bits(model(tokens(1, 3)), bare(tokens(1, 3)))


@pytest.mark.parametrize("kind", sorted(make_model))
def test_one_adapter_is_mlx_lms_own_lora_bit_for_bit(kind: str, loras: list[Lora]) -> None:
    model = make_model[kind]()
    slots = Slots.patch(model)
    for lora in loras[:3]:
        reference = with_mlx_lora(make_model[kind](), lora)
        slots.bind("a", lora)
        slots.use([Mix.single("a")])
        for length in LENGTHS:
            assert same_bits(model(tokens(2, length)), reference(tokens(2, length)))


def test_float16_adapters_are_mlx_lms_bit_for_bit_on_dense_modules() -> None:
    model, other = make_model["4-bit, bfloat16"](), make_model["4-bit, bfloat16"]()
    lora = scaled(random_adapter(model, 9, 8, dtype=np.float16), 0.3)
    lora = only(lora, *(kind for kind in KINDS if "switch" not in kind))
    slots = Slots.patch(model)
    slots.bind("a", lora)
    slots.use([Mix.single("a")])
    assert same_bits(model(tokens(2, 40)), with_mlx_lora(other, lora)(tokens(2, 40)))


@pytest.mark.parametrize("base", ["float32", "4-bit"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_module_alone_changes_the_answer_as_its_sum_says(
    kind: str, base: str, loras: list[Lora]
) -> None:
    model, dense = make_model[base](), dequantized(make_model[base]())
    plain = model(tokens(1, 40))
    lora = only(loras[0], kind)
    slots = Slots.patch(model)
    slots.bind("a", lora)
    slots.use([Mix.of({"a": 0.8})])
    changed = model(tokens(1, 40))
    assert difference(changed, plain) > 100 * CLOSE
    assert difference(changed, with_dense_sum(dense, [(lora, 0.8)])(tokens(1, 40))) < CLOSE


weights = st.dictionaries(
    st.sampled_from([f"a{index}" for index in range(ADAPTERS)]),
    st.floats(-1.5, 1.5, allow_nan=False).map(lambda weight: round(weight, 3)),
    max_size=MAX_ADAPTERS,
)
some = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@some
@given(weights)
def test_a_mix_is_the_weighted_sum_of_its_updates(
    patched: tuple[Model, Slots, str], loras: list[Lora], chosen: dict[str, float]
) -> None:
    model, slots, base = patched
    slots.use([Mix.of(chosen)])
    dense = with_dense_sum(
        dequantized(make_model[base]()),
        [(loras[int(name[1:])], weight) for name, weight in chosen.items()],
    )
    for length in LENGTHS:
        expected = dense(tokens(2, length))
        assert difference(model(tokens(2, length)), expected) < CLOSE * peak(expected)


@some
@given(st.lists(weights, min_size=1, max_size=4))
def test_each_row_of_a_batch_is_what_it_is_alone(
    patched: tuple[Model, Slots, str], rows: list[dict[str, float]]
) -> None:
    model, slots, _ = patched
    mixes = [Mix.of(row) for row in rows]
    for length in LENGTHS:
        batch = tokens(len(rows), length)
        slots.use(mixes)
        together = model(batch)
        mx.eval(together)
        for index, mix in enumerate(mixes):
            slots.use([mix])
            alone = model(batch[index : index + 1])[0]
            assert difference(together[index], alone) < CLOSE


def test_rows_decode_the_same_tokens_together_as_alone(
    patched: tuple[Model, Slots, str],
) -> None:
    model, slots, _ = patched
    mixes = [Mix.of({"a0": 0.6, "a2": -0.4}), BASE, Mix.single("a1"), Mix.single("a4")]
    prompts = tokens(len(mixes), 24)

    def decode(mixes: list[Mix], x: mx.array) -> list[list[int]]:
        slots.use(mixes)
        cache, out = model.language_model.make_cache(), []
        for _ in range(12):
            x = model(x, cache=cache)[:, -1:].argmax(-1)
            out.append(x[:, 0].tolist())
        return [list(row) for row in zip(*out, strict=True)]

    together = decode(mixes, prompts)
    alone = [decode([mix], prompts[i : i + 1])[0] for i, mix in enumerate(mixes)]
    assert together == alone
    assert len({tuple(row) for row in together}) == len(mixes)


@pytest.mark.parametrize("bits", [None, 4])
def test_an_embedding_is_adapted_in_both_its_uses(bits: int | None) -> None:
    class Tied(Module):
        def __init__(self, embedding: Module) -> None:
            super().__init__()
            self.embed_tokens = embedding

    mx.random.seed(1)
    embedding = Embedding(320, 64)
    if bits:
        embedding = embedding.to_quantized(64, bits)
    reference = LoRAEmbedding.from_base(embedding, r=4, scale=2.0)
    reference.lora_b = mx.random.normal(reference.lora_b.shape)
    weight = LoraWeight("embed_tokens", np.array(reference.lora_a).T, np.array(reference.lora_b).T)
    ids, x = tokens(3, 7), mx.random.normal((3, 7, 64))
    plain, plain_out = embedding(ids), embedding.as_linear(x)
    slots = Slots.patch(Tied(embedding))
    slots.bind("a", Lora("a", "", 4, 8.0, {"embed_tokens": weight}))
    mx.eval(expected := (plain, plain_out))
    slots.use([Mix.single("a")])
    got = embedding(ids), embedding.as_linear(x)
    slots.use([Mix.single("a"), BASE, Mix.of({"a": 0.5})])
    rows = embedding(ids), embedding.as_linear(x)
    slots.use([BASE])
    full = reference(ids), reference.as_linear(x)
    for base, one, each, whole in zip(expected, got, rows, full, strict=True):
        assert same_bits(one, whole)
        assert difference(each[0], whole[0]) < 1e-5
        assert same_bits(each[1], base[1])
        assert difference(each[2], (base[2] + whole[2]) / 2) < 1e-5


def test_a_block_that_loses_the_rows_is_refused_not_answered_wrongly() -> None:
    class Layer(Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = SwitchMLP(64, 64, 4)

    class Layers(Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Layer()]

    model = Layers()
    slots = Slots.patch(model)
    a, b = np.ones((4, 2, 64), np.float32), np.ones((4, 64, 2), np.float32)
    weight = LoraWeight("layers.0.mlp.fc1", a, b)
    slots.bind("a", Lora("a", "", 2, 2.0, {weight.module: weight}))
    x, chosen = mx.random.normal((2, 40, 64)), mx.zeros((2, 40, 1), mx.uint32)
    slots.use([Mix.single("a"), BASE])
    with pytest.raises(EngineError, match="loses the batch's rows"):
        model.layers[0].mlp(x, chosen)
    assert model.layers[0].mlp(x[:, :2], chosen[:, :2]).shape == (2, 2, 1, 64)
    slots.use([Mix.single("a")])
    assert model.layers[0].mlp(x, chosen).shape == (2, 40, 1, 64)
