from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.engines.vllm.compose import compose
from adapters.engines.vllm.slate import Slate
from adapters.engines.vllm.sources import Source
from adapters.engines.vllm.tensors import stored_tensors
from adapters.forms import read_lora
from kiki.errors import AdapterError
from tests.adapters.engines.vllm.folders import numbers_of, small_adapter, write_adapter

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
GATE_UP, EXPERTS_DOWN = (
    "model.layers.0.mlp.experts.base_layer",
    "model.layers.0.mlp.experts",
)
weights = st.floats(-10, 10, allow_nan=False).filter(lambda w: abs(w) > 1e-3)
QUICK = settings(max_examples=25, deadline=None)


def dense(source: Source, module: str) -> np.ndarray:
    """scale * B @ A in float64; (experts, outputs, inputs)."""
    a = numbers_of(source, module, "A").astype(np.float64)
    b = numbers_of(source, module, "B").astype(np.float64).transpose(2, 0, 1)
    return np.asarray(scale_of(source, module) * (b @ a))


def scale_of(source: Source, module: str) -> float:
    return source.halves[module, "B"].scale


def kinds_of(source: Source) -> set[str]:
    return {half.stored.kind for half in source.halves.values()}


def dense_sum(parts, module: str) -> np.ndarray:
    terms = [w * dense(s, module) for s, w in parts if (module, "A") in s.halves]
    return np.asarray(np.sum(terms, axis=0))


def assert_is_the_sum(parts, out, tolerance: float = 1e-6, **options) -> Source:
    compose(parts, out, **options)
    mixed = Source.open(out, "model.")
    for module in {module for source, _ in parts for module, _ in source.halves}:
        expected = dense_sum(parts, module)
        # Against the largest term: terms of opposite sign may cancel each other.
        size = max(abs(w * dense(s, module)).max() for s, w in parts if (module, "A") in s.halves)
        np.testing.assert_allclose(dense(mixed, module), expected, rtol=0, atol=tolerance * size)
    return mixed


@given(data=st.data())
@QUICK
def test_a_mix_is_the_weighted_sum_of_its_adapters(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    count = data.draw(st.integers(1, 4))
    parts = []
    for number in range(count):
        rank = data.draw(st.integers(1, 16))
        small_adapter(folder / f"a{number}", number, rank=rank)
        parts.append((Source.open(folder / f"a{number}", "model."), data.draw(weights)))
    mixed = assert_is_the_sum(parts, folder / "mix")
    assert mixed.rank == sum(source.rank for source, _ in parts)
    assert scale_of(mixed, Q) == 1.0


@given(data=st.data())
@QUICK
def test_experts_are_joined_on_their_rank_and_never_by_rows(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    experts, hidden, inner = data.draw(st.integers(1, 5)), 6, 4
    parts = []
    for number in range(data.draw(st.integers(2, 4))):
        rank = data.draw(st.integers(1, 5))
        halves = {
            name: (
                random.normal(size=(experts * r, inputs)).astype(np.float32),
                random.normal(size=(outputs, r * experts)).astype(np.float32),
            )
            for name, outputs, inputs, r in (
                (GATE_UP, 2 * inner, hidden, 2 * rank),
                (EXPERTS_DOWN, hidden, inner, rank),
            )
        }
        write_adapter(
            folder / f"a{number}",
            halves,
            rank,
            float(rank),
            rank_pattern={"mlp.experts.gate_up_proj": 2 * rank},
            alpha_pattern={"mlp.experts.gate_up_proj": 2.0 * rank},
        )
        parts.append((Source.open(folder / f"a{number}", "model."), data.draw(weights)))
    assert_is_the_sum(parts, folder / "mix")


def test_another_reader_sees_the_same_update(tmp_path):
    for number in range(2):
        small_adapter(tmp_path / f"a{number}", number)
    parts = [(Source.open(tmp_path / f"a{n}", "model."), w) for n, w in ((0, 0.7), (1, -0.3))]
    compose(parts, tmp_path / "mix")
    read = read_lora(tmp_path / "mix")
    assert read.rank == 8
    for name, weight in read.weights.items():
        expected = dense_sum(parts, f"model.{name}")[0]
        np.testing.assert_allclose(read.scale * weight.b @ weight.a, expected, atol=1e-5)


def test_a_module_that_one_adapter_leaves_alone_keeps_the_others_update(tmp_path):
    small_adapter(tmp_path / "whole", 1)
    a, b = np.ones((2, 8), np.float32), np.ones((6, 2), np.float32)
    write_adapter(tmp_path / "part", {Q: (a, b)}, 2, 2.0)
    parts = [(Source.open(tmp_path / name, "model."), 0.5) for name in ("whole", "part")]
    mixed = assert_is_the_sum(parts, tmp_path / "mix")
    assert (DOWN, "A") in mixed.halves


def test_scales_by_rank_stabilisation_and_by_module_are_kept(tmp_path):
    a, b = np.ones((4, 8), np.float32), np.full((6, 4), 0.5, np.float32)
    write_adapter(tmp_path / "rs", {Q: (a, b)}, 4, 8.0, use_rslora=True)
    write_adapter(tmp_path / "pattern", {Q: (a, b)}, 4, 8.0, alpha_pattern={"q_proj": 2.0})
    parts = [(Source.open(tmp_path / name, "model."), 1.0) for name in ("rs", "pattern")]
    assert scale_of(parts[0][0], Q) == 4.0
    assert scale_of(parts[1][0], Q) == 0.5
    assert_is_the_sum(parts, tmp_path / "mix")


@pytest.mark.parametrize(("kind", "error"), [("F16", 2.0**-11), ("BF16", 2.0**-8)])
def test_numbers_keep_their_kind_and_are_rounded_once(kind, error, tmp_path):
    import torch
    from safetensors.torch import save_file

    dtype = {"F16": torch.float16, "BF16": torch.bfloat16}[kind]
    torch.manual_seed(0)
    for name in ("one", "two"):
        small_adapter(tmp_path / name, 1)
        path = tmp_path / name / "adapter_model.safetensors"
        tensors = {key: torch.randn(t.shape).to(dtype) for key, t in stored_tensors(path).items()}
        save_file(tensors, path)
    parts = [(Source.open(tmp_path / n, "model."), w) for n, w in (("one", 0.3), ("two", -0.7))]
    compose(parts, tmp_path / "mix")
    mixed = Source.open(tmp_path / "mix", "model.")
    assert kinds_of(mixed) == {kind}
    a, b = numbers_of(mixed, Q, "A"), numbers_of(mixed, Q, "B")
    start = 0
    for source, weight in parts:
        part = slice(start, start + source.rank)
        np.testing.assert_array_equal(a[:, part], numbers_of(source, Q, "A"))
        wanted = numbers_of(source, Q, "B") * np.float32(weight * scale_of(source, Q))
        np.testing.assert_array_less(abs(b[:, part] - wanted), abs(wanted) * error + 1e-30)
        start += source.rank


def test_adapters_of_different_kinds_meet_in_f32(tmp_path):
    small_adapter(tmp_path / "f32", 1)
    a, b = np.ones((2, 8), np.float16), np.ones((6, 2), np.float16)
    write_adapter(tmp_path / "f16", {Q: (a, b)}, 2, 2.0)
    parts = [(Source.open(tmp_path / name, "model."), 0.3) for name in ("f32", "f16")]
    mixed = assert_is_the_sum(parts, tmp_path / "mix")
    assert kinds_of(mixed) == {"F32"}


@pytest.mark.parametrize(
    ("kind", "error"), [("F32", 2.0**-23), ("F16", 2.0**-11), ("BF16", 2.0**-8)]
)
def test_a_mix_can_be_written_in_the_servers_kind_of_numbers(kind, error, tmp_path):
    parts = []
    for number, weight in ((1, 0.3), (2, -0.7)):
        small_adapter(tmp_path / f"a{number}", number)
        parts.append((Source.open(tmp_path / f"a{number}", "model."), weight))
    size = compose(parts, tmp_path / "mix", kind=kind).bytes
    mixed = Source.open(tmp_path / "mix", "model.")
    assert kinds_of(mixed) == {kind}
    assert mixed.bytes_as(None) == sum(source.bytes_as(kind) for source, _ in parts)
    assert size >= mixed.bytes_as(None)
    b = numbers_of(mixed, Q, "B")
    wanted = numbers_of(parts[1][0], Q, "B") * np.float32(-0.7 * scale_of(parts[1][0], Q))
    np.testing.assert_array_less(abs(b[:, 4:] - wanted), abs(wanted) * error + 1e-30)


@given(data=st.data())
@QUICK
def test_a_mix_written_over_another_one_is_as_if_written_anew(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("over")
    kinds = st.sampled_from([None, "F32", "F16", "BF16"])
    kind, sources = data.draw(kinds), []
    for number in range(4):
        small_adapter(folder / f"a{number}", number, rank=data.draw(st.sampled_from([2, 4])))
        sources.append(Source.open(folder / f"a{number}", "model."))
    before, after = (data.draw(st.permutations(sources)) for _ in range(2))
    count = data.draw(st.integers(1, 4))
    same = data.draw(st.booleans())
    old = [(source, data.draw(weights)) for source in before[:count]]
    new = [(source, data.draw(weights)) for source in (before if same else after)[:count]]
    slate = compose(old, folder / "old", kind=kind, adapters=str(before))
    names = str(before if same else after)
    compose(new, folder / "over", kind=kind, slates=[slate], adapters=names)
    compose(new, folder / "anew", kind=kind)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folder / "over" / name).read_bytes() == (folder / "anew" / name).read_bytes()
    assert not (folder / "old").exists()


def test_a_file_of_another_size_is_never_cut_or_stretched(tmp_path):
    """vLLM may have it mapped still."""
    parts = []
    for number in range(2):
        small_adapter(tmp_path / f"a{number}", number)
        parts.append((Source.open(tmp_path / f"a{number}", "model."), 0.5))
    slate = compose(parts[:1], tmp_path / "old")
    with (tmp_path / "old" / "adapter_model.safetensors").open("rb") as file:
        before = file.read()
        compose(parts, tmp_path / "mix", slates=[slate])
        file.seek(0)
        assert file.read() == before
    assert not (tmp_path / "old").exists()


def test_a_slate_that_nobody_used_is_cut_to_the_size_of_the_mix(tmp_path):
    parts = []
    for number in range(2):
        small_adapter(tmp_path / f"a{number}", number)
        parts.append((Source.open(tmp_path / f"a{number}", "model."), 0.5))
    anew = compose(parts, tmp_path / "anew")
    spare = Slate.make(tmp_path / "spare", anew.bytes + 10_000)
    small = Slate.make(tmp_path / "small", anew.bytes - 1)
    assert compose(parts, tmp_path / "mix", slates=[small, spare]) is spare
    name = "adapter_model.safetensors"
    assert (tmp_path / "mix" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()
    assert small.folder.exists()
    assert not (tmp_path / "spare").exists()


def test_of_several_slates_that_of_the_same_adapters_is_taken(tmp_path):
    small_adapter(tmp_path / "one", 1)
    parts = [(Source.open(tmp_path / "one", "model."), 0.5)]
    others = [compose(parts, tmp_path / name, adapters=name) for name in ("x", "one+", "y")]
    spare = Slate.make(tmp_path / "spare", others[0].bytes)
    assert compose(parts, tmp_path / "mix", slates=[spare, *others], adapters="one+") is others[1]
    rest = [spare, others[0], others[2]]
    assert compose(parts, tmp_path / "second", slates=rest, adapters="z") is others[0]
    assert spare.clean


def test_slates_that_do_not_fit_make_room_for_a_new_one(tmp_path):
    small_adapter(tmp_path / "one", 1)
    parts = [(Source.open(tmp_path / "one", "model."), 0.5)]
    small = Slate.make(tmp_path / "small", 100)
    assert compose(parts, tmp_path / "mix", slates=[small]) is not small
    assert not small.folder.exists()
    assert small.bytes == 0


def test_a_slate_whose_mix_failed_counts_as_that_of_no_adapters(tmp_path):
    """It was written over in part."""
    small_adapter(tmp_path / "one", 1)
    parts = [(Source.open(tmp_path / "one", "model."), 0.5)]
    slate = compose(parts, tmp_path / "mix", adapters="one")
    path = tmp_path / "one" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes())
    with pytest.raises(AdapterError, match="has changed"):
        compose(parts, tmp_path / "again", slates=[slate], adapters="one")
    assert slate.adapters == ""
    assert not slate.clean


def test_the_larger_half_of_a_module_is_kept_as_it_is_on_disk(tmp_path):
    a, b = np.full((2, 8), 0.3, np.float16), np.full((6, 2), 0.7, np.float16)
    wide = np.full((40, 2), 0.7, np.float16)
    up = "model.layers.0.mlp.up_proj"
    parts = []
    for name in ("one", "two"):
        write_adapter(tmp_path / name, {Q: (a, b), up: (a, wide)}, 2, 2.0)
        parts.append((Source.open(tmp_path / name, "model."), 0.3))
    mixed = assert_is_the_sum(parts, tmp_path / "mix", kind="F32")
    kinds = {key: half.stored.kind for key, half in mixed.halves.items()}
    assert kinds == {(Q, "A"): "F16", (Q, "B"): "F32", (up, "A"): "F32", (up, "B"): "F16"}
    np.testing.assert_array_equal(numbers_of(mixed, up, "B")[:, :2], wide.reshape(40, 2, 1))


def test_names_become_those_of_the_server(tmp_path):
    small_adapter(tmp_path / "plain", 1)
    nested = Source.open(tmp_path / "plain", "model.language_model.")
    assert not nested.native
    compose([(nested, 1.0)], tmp_path / "nested")
    names = list(stored_tensors(tmp_path / "nested" / "adapter_model.safetensors"))
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in names)
    assert Source.open(tmp_path / "nested", "model.language_model.").native


def test_adapters_of_different_bases_are_refused(tmp_path):
    small_adapter(tmp_path / "one", 1)
    a, b = np.ones((2, 9), np.float32), np.ones((6, 2), np.float32)
    write_adapter(tmp_path / "other", {Q: (a, b)}, 2, 2.0)
    parts = [(Source.open(tmp_path / name, "model."), 1.0) for name in ("one", "other")]
    with pytest.raises(AdapterError, match=r"its adapters disagree about .*q_proj"):
        compose(parts, tmp_path / "mix")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"r": 3}, "rank 3"),
        ({"peft_type": "IA3"}, "LORA"),
    ],
)
def test_what_is_no_plain_lora_is_refused(change, said, tmp_path):
    small_adapter(tmp_path / "one", 1)
    path = tmp_path / "one" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdapterError, match=said):
        Source.open(tmp_path / "one", "model.")


def test_a_damaged_file_is_refused(tmp_path):
    small_adapter(tmp_path / "one", 1)
    path = tmp_path / "one" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors is cut off"):
        Source.open(tmp_path / "one", "model.")
