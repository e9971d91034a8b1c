from __future__ import annotations

import json
import math
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from adapters.angle import angles
from adapters.catalog import SHIPPED
from adapters.folders import adapters_in
from adapters.forms import read_lora
from adapters.gate import DEFAULT_LIMITS, Limits, judge, read_drops, run_gate
from adapters.heatmap import heatmap
from adapters.sweep import sweep
from kiki.errors import AdapterError

SHELL, SQL, CPP = SHIPPED / "shell", SHIPPED / "sql", SHIPPED / "cpp"
WEIGHTS = "adapter_model.safetensors"
Tensors = dict[str, np.ndarray]


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """Copy a shipped adapter to another name, with its tensors changed."""

    def make(source: Path, name: str, change: Callable[[Tensors], Tensors] = dict) -> Path:
        made = tmp_path / "adapters" / name
        shutil.copytree(source, made)
        save_file(change(load_file(source / WEIGHTS)), made / WEIGHTS)
        return made

    return make


def near_copy(tensors: Tensors) -> Tensors:
    """The same update with a little noise: a few degrees away."""
    chance = np.random.default_rng(1)
    return {
        name: tensor * (1 + 0.05 * chance.normal(size=tensor.shape)).astype(np.float16)
        for name, tensor in tensors.items()
    }


def dead(tensors: Tensors) -> Tensors:
    return {n: np.zeros_like(t) if "lora_B" in n else t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("angle", "drop", "verdict"),
    [
        (75.0, None, "pass"),
        (75.0, 0.01, "pass"),
        (75.0, -0.2, "pass"),
        (30.0, 0.03, "pass"),
        (29.9, None, "angle"),
        (29.9, 0.03, "angle"),
        (75.0, 0.05, "win-rate"),
        (12.0, 0.05, "roll-back"),
    ],
)
def test_only_a_small_angle_and_a_drop_together_roll_back(angle, drop, verdict):
    assert judge(angle, drop, DEFAULT_LIMITS) == verdict


@given(st.floats(0, 90), st.floats(-1, 1) | st.none(), st.floats(0, 90), st.floats(0, 1))
def test_a_verdict_never_softens_when_the_angle_shrinks_or_the_drop_grows(angle, drop, by, more):
    order = ["pass", "angle", "win-rate", "roll-back"]
    before = judge(angle, drop, DEFAULT_LIMITS)
    worse = None if drop is None else min(1, drop + more)
    after = judge(max(0, angle - by), worse, DEFAULT_LIMITS)
    assert order.index(after) >= order.index(before)


def test_a_shipped_adapter_passes_against_the_others():
    report = run_gate(SHELL, [CPP, SQL])
    assert (report.verdict, report.exit_code, report.roll_back) == ("pass", 0, False)
    assert [one.prior for one in report.comparisons] == ["cpp", "sql"]
    assert report.comparisons[0].angles == angles(read_lora(CPP), read_lora(SHELL))


def test_a_near_copy_of_a_prior_is_told_by_its_angle_and_rolled_back_with_a_drop(copy):
    again = copy(SQL, "again", near_copy)
    report = run_gate(again, [CPP, SQL])
    assert (report.verdict, report.exit_code) == ("angle", 1)
    assert [one.verdict for one in report.comparisons] == ["pass", "angle"]
    report = run_gate(again, [CPP, SQL], drops=0.05)
    assert (report.verdict, report.exit_code, report.roll_back) == ("roll-back", 2, True)
    assert [one.verdict for one in report.comparisons] == ["win-rate", "roll-back"]


def test_angle_and_drop_count_together_only_on_the_same_prior(copy):
    again = copy(SQL, "again", near_copy)
    report = run_gate(again, [CPP, SQL], drops={"cpp": 0.2, "sql": 0.0})
    assert [one.verdict for one in report.comparisons] == ["win-rate", "angle"]
    assert (report.verdict, report.exit_code, report.roll_back) == ("win-rate", 2, False)
    report = run_gate(again, [CPP, SQL], drops={"sql": 0.031})
    assert [one.win_rate_drop for one in report.comparisons] == [None, 0.031]
    assert report.roll_back


def test_the_limits_can_be_moved():
    assert run_gate(SHELL, [SQL], limits=Limits(angle=90)).verdict == "angle"
    assert run_gate(SHELL, [SQL], drops=0.05, limits=Limits(win_rate_drop=0.1)).verdict == "pass"


def test_a_dead_or_unreadable_or_misplaced_adapter_is_unhealthy(copy, tmp_path):
    for path, base in ((copy(SQL, "dead", dead), None), (tmp_path, None), (SQL, "gpt2")):
        report = run_gate(path, [CPP], base=base)
        assert (report.verdict, report.exit_code, report.comparisons) == ("unhealthy", 3, ())
        assert report.findings[0].level == "sick"


def test_a_prior_that_can_not_be_compared_is_left_out_with_the_reason(copy, tmp_path):
    report = run_gate(SHELL, [copy(SQL, "dead", dead), tmp_path, CPP])
    assert [one.name for one in report.left_out] == ["dead", tmp_path.name]
    assert "no module" in report.left_out[0].reason
    assert [one.prior for one in report.comparisons] == ["cpp"]


def test_progress_counts_the_priors():
    seen: list[tuple[int, int]] = []
    run_gate(SHELL, [CPP, SQL], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_drops_are_read_as_numbers_or_as_rates_before_and_after(tmp_path):
    file = tmp_path / "drops.json"
    file.write_text('{"sql": 0.05, "cpp": {"before": 0.60, "after": 0.57}, "shell": -0.1}')
    assert read_drops(file) == {"sql": 0.05, "cpp": 0.03, "shell": -0.1}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"sql": 5}', '{"sql": NaN}', '{"sql": true}', '{"sql": "0.1"}',
     '{"sql": {"before": 0.5}}', '{"sql": {"before": -0.5, "after": 0}}'],
)  # fmt: skip
def test_drops_that_are_no_rates_are_refused_with_the_place(tmp_path, text):
    file = tmp_path / "drops.json"
    file.write_text(text)
    with pytest.raises(AdapterError, match=r"drops\.json"):
        read_drops(file)


def test_a_sweep_measures_every_pair_as_angles_does():
    found = sweep(adapters_in(SHIPPED))
    assert found.names == ("chat-fr", "cpp", "python", "shell", "spice", "sql")
    assert len(found.pairs) == 15
    loras = {name: read_lora(SHIPPED / name) for name in found.names}
    for pair in found.pairs:
        report = angles(loras[pair.a], loras[pair.b])
        assert pair.degrees == pytest.approx(report.mean, abs=1e-6)
        by_kind = {kind.kind: kind.degrees for kind in report.kinds}
        assert pair.kinds == pytest.approx(by_kind, abs=1e-6)
    assert found.closest == min(found.pairs, key=lambda pair: pair.degrees)


def test_a_sweep_in_little_memory_finds_the_same():
    paths = [SHELL, SQL, CPP]
    pair_at_a_time, together = sweep(paths, memory=1), sweep(paths)
    for one, other in zip(pair_at_a_time.pairs, together.pairs, strict=True):
        assert (one.a, one.b) == (other.a, other.b)
        assert one.degrees == pytest.approx(other.degrees, abs=1e-9)


def test_a_sweep_counts_only_what_both_of_a_pair_have(copy):
    def no_v(tensors: Tensors) -> Tensors:
        return {n: t for n, t in tensors.items() if "v_proj" not in n and "layers.3." not in n}

    fewer = copy(SQL, "fewer", no_v)
    found = sweep([CPP, fewer, SHELL])
    loras = {"cpp": read_lora(CPP), "fewer": read_lora(fewer), "shell": read_lora(SHELL)}
    for pair in found.pairs:
        expected = angles(loras[pair.a], loras[pair.b])
        assert pair.degrees == pytest.approx(expected.mean, abs=1e-6)
        assert set(pair.kinds) == {kind.kind for kind in expected.kinds}


def test_a_sweep_leaves_out_the_sick_and_says_why(copy):
    copy(SHELL, "shell")
    folder = copy(SQL, "dead", dead).parent
    (folder / "not-an-adapter").mkdir()
    broken = copy(CPP, "broken")
    (broken / WEIGHTS).write_bytes(b"no weights")
    found = sweep(adapters_in(folder))
    assert found.names == ("shell",)
    assert [one.name for one in found.left_out] == ["broken", "dead"]
    assert "zeros" in found.left_out[1].reason
    assert (found.pairs, found.closest) == ((), None)


def test_the_picture_is_well_formed_and_has_a_cell_for_every_pair():
    matrix = [[None, 12.0, 90.0], [12.0, None, 0.0], [90.0, 0.0, None]]
    root = ET.fromstring(heatmap(["a<b", "c&d", 'e"f'], matrix, "Degrees <1>"))
    space = "{http://www.w3.org/2000/svg}"
    titles = [element.text for element in root.iter(f"{space}title")]
    assert len(titles) == 6
    assert "a<b and c&d: 12.0 degrees" in titles
    assert root.get("aria-label") == "Degrees <1>"


@given(st.floats(0, 90))
def test_every_angle_has_a_colour(value):
    ET.fromstring(heatmap(["a", "b"], [[None, value], [value, None]], "t"))


def test_every_number_of_a_sweep_is_json():
    pairs = sweep([SHELL, SQL]).pairs
    assert all(math.isfinite(angle) for pair in pairs for angle in pair.kinds.values())
    json.dumps([pair.kinds for pair in pairs], allow_nan=False)


def test_an_angle_or_a_drop_that_is_no_number_does_not_pass():
    assert judge(math.nan, None, Limits()) == "angle"
    assert judge(80.0, math.nan, Limits()) == "win-rate"
