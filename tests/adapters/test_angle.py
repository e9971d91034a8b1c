from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.angle import angles, inner_products
from adapters.catalog import SHIPPED
from adapters.forms import read_lora
from adapters.lora import Lora, LoraWeight
from kiki.errors import AdapterError

NAMES = sorted(path.name for path in SHIPPED.iterdir())
LORAS = {name: read_lora(SHIPPED / name) for name in NAMES}
# Two layers of each: enough for what holds for every module by itself.
SMALL = {
    name: replace(lora, weights={n: w for n, w in lora.weights.items() if w.layer < 2})
    for name, lora in LORAS.items()
}

names = st.sampled_from(NAMES)
factors = st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3)


def update(weight: LoraWeight) -> np.ndarray:
    """The whole update (experts, outputs, inputs), which the code under test never makes."""
    product = weight.b.astype(np.float64) @ weight.a.astype(np.float64)
    return product if product.ndim == 3 else product[None]


def angle_of(one: np.ndarray, other: np.ndarray) -> float:
    cosine = abs(one.ravel() @ other.ravel()) / np.linalg.norm(one) / np.linalg.norm(other)
    return math.degrees(math.acos(min(cosine, 1)))


def dense_kinds(a: Lora, b: Lora) -> dict[str, float]:
    flat: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for name in a.weights:
        if name in b.weights:
            ours, theirs = flat.setdefault(a.weights[name].kind, ([], []))
            ours.append(a.scale * update(a.weights[name]).ravel())
            theirs.append(b.scale * update(b.weights[name]).ravel())
    return {
        kind: angle_of(np.concatenate(ours), np.concatenate(theirs))
        for kind, (ours, theirs) in flat.items()
    }


def scaled(lora: Lora, factor: float) -> Lora:
    weights = {n: replace(w, b=w.b * np.float64(factor)) for n, w in lora.weights.items()}
    return replace(lora, weights=weights)


def mixture(seed: int, experts: int = 5, rank: int = 3, inputs: int = 11) -> Lora:
    chance = np.random.default_rng(seed)
    weights = {}
    for layer in range(2):
        for kind in ("gate_proj", "down_proj"):
            name = f"layers.{layer}.mlp.switch_mlp.{kind}"
            a = chance.normal(size=(experts, rank, inputs)).astype(np.float32)
            weights[name] = LoraWeight(name, a, chance.normal(size=(experts, 7, rank)))
    return Lora(f"mixture-{seed}", "", rank, float(rank), weights)


@pytest.mark.parametrize(("one", "other"), [("shell", "cpp"), ("chat-fr", "spice")])
def test_angles_of_real_adapters_are_those_of_the_whole_updates(one, other):
    report = angles(SMALL[one], SMALL[other])
    expected = dense_kinds(SMALL[one], SMALL[other])
    assert {kind.kind: kind.degrees for kind in report.kinds} == pytest.approx(expected, abs=1e-6)
    assert report.mean == pytest.approx(sum(expected.values()) / len(expected), abs=1e-6)
    for kind in report.kinds:
        ours = {n: w for n, w in SMALL[one].weights.items() if w.kind == kind.kind}
        by_module = {
            name: angle_of(update(weight), update(SMALL[other].weights[name]))
            for name, weight in ours.items()
        }
        assert kind.modules == len(by_module)
        assert kind.lowest.module == min(by_module, key=lambda name: by_module[name])
        assert kind.lowest.degrees == pytest.approx(min(by_module.values()), abs=1e-6)


@given(st.integers(0, 99), st.integers(100, 199), st.integers(1, 4), st.integers(1, 4))
def test_every_expert_has_its_own_angle_whatever_the_ranks(one, other, rank, other_rank):
    a, b = mixture(one, rank=rank), mixture(other, rank=other_rank)
    report = angles(a, b)
    lowest = []
    for name, weight in a.weights.items():
        ours, theirs = update(weight), update(b.weights[name])
        expected = [angle_of(ours[e], theirs[e]) for e in range(5)]
        assert report.experts[name] == pytest.approx(expected, abs=1e-6)
        lowest += expected
    assert report.lowest_expert is not None
    assert report.lowest_expert.degrees == pytest.approx(min(lowest), abs=1e-6)
    expected_kinds = dense_kinds(a, b)
    assert {k.kind: k.degrees for k in report.kinds} == pytest.approx(expected_kinds, abs=1e-6)


def test_the_six_shipped_adapters_lie_far_apart():
    for one, other in combinations(NAMES, 2):
        assert 30 < angles(LORAS[one], LORAS[other]).mean <= 90


@given(names)
def test_an_adapter_is_at_no_angle_to_itself(name):
    report = angles(SMALL[name], SMALL[name])
    assert report.mean == pytest.approx(0, abs=1e-5)
    assert all(kind.lowest.degrees == pytest.approx(0, abs=1e-5) for kind in report.kinds)


@given(names, names)
def test_the_order_of_two_adapters_does_not_matter(one, other):
    there, back = angles(SMALL[one], SMALL[other]), angles(SMALL[other], SMALL[one])
    assert there.mean == pytest.approx(back.mean, abs=1e-9)


@given(names, names, factors, factors)
def test_neither_size_nor_sign_of_an_update_changes_the_angle(one, other, left, right):
    plain = angles(SMALL[one], SMALL[other])
    times = angles(scaled(SMALL[one], left), replace(scaled(SMALL[other], right), alpha=99.0))
    assert times.mean == pytest.approx(plain.mean, abs=1e-5)


def test_an_opposite_update_counts_as_alike():
    shell = SMALL["shell"]
    assert angles(shell, scaled(shell, -0.5)).mean == pytest.approx(0, abs=1e-5)


def test_modules_that_only_one_has_or_of_another_shape_are_skipped_and_listed():
    shell, sql = SMALL["shell"], SMALL["sql"]
    gone, cut = "layers.0.self_attn.q_proj", "layers.1.self_attn.v_proj"
    fewer = {n: w for n, w in shell.weights.items() if n != gone}
    fewer[cut] = replace(fewer[cut], b=fewer[cut].b[:-1])
    report = angles(replace(shell, weights=fewer), sql)
    assert report.skipped == (gone, cut)
    kept = {n: w for n, w in shell.weights.items() if n not in (gone, cut)}
    assert report.mean == angles(replace(shell, weights=kept), sql).mean


def test_an_update_of_zero_has_no_angle_and_is_listed():
    name = "layers.0.self_attn.q_proj"
    shell = SMALL["shell"]
    still = replace(shell.weights[name], b=np.zeros_like(shell.weights[name].b))
    report = angles(replace(shell, weights={**shell.weights, name: still}), SMALL["sql"])
    assert report.idle == (name,)
    assert all(kind.lowest.module != name for kind in report.kinds)


def test_an_expert_that_was_never_changed_has_no_angle():
    a, b = mixture(1), mixture(2)
    name = "layers.0.mlp.switch_mlp.gate_proj"
    still = a.weights[name].b.copy()
    still[3] = 0
    report = angles(replace(a, weights={**a.weights, name: replace(a.weights[name], b=still)}), b)
    assert math.isnan(report.experts[name][3])
    assert not any(math.isnan(report.experts[name][e]) for e in (0, 1, 2, 4))


def test_adapters_that_share_nothing_or_are_not_finite_are_refused():
    with pytest.raises(AdapterError, match="share no module"):
        angles(SMALL["shell"], mixture(1))
    shell = SMALL["shell"]
    with pytest.raises(AdapterError, match="kiki adapters check"):
        angles(shell, scaled(SMALL["sql"], math.nan))


def test_many_experts_are_worked_through_in_parts(monkeypatch):
    a, b = (next(iter(mixture(seed).weights.values())) for seed in (1, 2))
    whole = inner_products([a, b], [b, a])
    monkeypatch.setattr("adapters.angle._CHUNK_BYTES", 1)
    assert inner_products([a, b], [b, a]) == pytest.approx(whole)
