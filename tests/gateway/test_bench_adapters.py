"""``kiki bench adapters`` in its smallest sizes: what the report holds. Nothing is timed here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from gateway.bench import adapters as bench
from gateway.bench.options import Options
from kiki.errors import EngineUnavailableError

SMALLEST = ("--layers", "4", "--tokens", "4", "--rounds", "1")
METRICS = {
    "switch_p50_ms": "ms",
    "first_use_p50_ms": "ms",
    "reload_p50_ms": "ms",
    "unpatch_p50_ms": "ms",
    "reload_over_switch": "ratio",
    "unpatch_over_switch": "ratio",
    "wrapped_modules": "modules",
    "decode_ms_per_token": "ms",
    "decode_mlx_lm_ms_per_token": "ms",
    "decode_base_ms_per_token": "ms",
    "decode_over_mlx_lm": "ratio",
    "panel_mlx_s": "s",
    "sequential_mlx_s": "s",
    "panel_mlx_tokens": "tokens",
    "panel_over_sequential_mlx": "ratio",
    "panel_llamacpp_s": "s",
    "sequential_llamacpp_s": "s",
    "panel_llamacpp_tokens": "tokens",
    "panel_over_sequential_llamacpp": "ratio",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "bench", "adapters", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def report(base_gguf, hf_base) -> dict[str, Any]:
    result = run(*SMALLEST, "--only", "switch,decode,panel", "--json")
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_the_report_holds_every_metric_with_its_unit_and_count(report):
    assert {name: metric["unit"] for name, metric in report["metrics"].items()} == METRICS
    for name, metric in report["metrics"].items():
        assert metric["n"] >= 1, name
        assert metric["value"] > 0, name
    assert report["left_out"] == {}


def test_the_report_says_on_what_and_how_it_was_measured(report):
    assert report["machine"]["processor"]
    settings = report["settings"]
    assert {key: settings[key] for key in ("shape", "layers", "tokens", "rounds")} == {
        "shape": "tiny",
        "layers": 4,
        "tokens": 4,
        "rounds": 1,
    }
    assert settings["mlx_compile"] is not settings["mlx_on_cpu"]
    assert settings["mlx_device"]


def test_ratios_are_those_of_the_times_beside_them(report):
    """With one round the median of the ratios is the ratio of the medians."""
    value = {name: metric["value"] for name, metric in report["metrics"].items()}
    for over, under, ratio in (
        ("decode_ms_per_token", "decode_mlx_lm_ms_per_token", "decode_over_mlx_lm"),
        ("panel_mlx_s", "sequential_mlx_s", "panel_over_sequential_mlx"),
    ):
        assert value[over] / value[under] == pytest.approx(value[ratio], rel=0.01)


def test_an_unknown_part_is_refused_with_the_list():
    result = run("--only", "switch,bogus")
    assert result.returncode == 2
    assert "'bogus' is none of: " + ", ".join(bench.PARTS) in " ".join(result.stderr.split())


def test_without_vllm_its_part_is_left_out_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bench, "VLLM_HERE", tmp_path / "vllm")
    report = bench.measure(Options(), ("compose-vllm",), lambda *_: None)
    assert report.metrics == {}
    assert report.left_out["compose-vllm"].startswith("vLLM is not installed.")
    assert "left out: compose-vllm: vLLM is not installed." in report.to_text()


def test_the_panels_adapters_all_stay_in_memory(monkeypatch, base_gguf, hf_base):
    """Else the panel would measure the disk."""
    monkeypatch.setenv("KIKI_ADAPTER_MEMORY", "1MB")
    asked = []

    def build(settings, choice, model):
        asked.append(settings)
        raise EngineUnavailableError("It isn't needed here.")

    monkeypatch.setattr(bench, "build_engine", build)
    bench.measure(Options(), ("panel-mlx",), lambda *_: None)
    in_float32 = 2 * sum(adapter.bytes for adapter in bench._shipped())
    assert [settings.adapter_memory for settings in asked] == [in_float32]


def test_without_mlx_its_parts_are_left_out_and_say_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlx_lm" else find(name)
    )
    report = bench.measure(Options(), ("switch", "decode", "panel-mlx"), lambda *_: None)
    assert set(report.left_out) == {"switch", "decode", "panel-mlx"}
    for reason in report.left_out.values():
        assert "pip install 'kiki-gateway[mlx]'" in reason


COMPOSING = {
    "composed_mb": "MB",
    "compose_vllm_ms": "ms",
    "compose_over_load_vllm": "ratio",
    "recompose_vllm_ms": "ms",
    "recompose_over_load_vllm": "ratio",
    "reweigh_vllm_ms": "ms",
    "reweigh_over_load_vllm": "ratio",
    "cold_compose_vllm_ms": "ms",
    "cold_compose_over_load_vllm": "ratio",
    "load_vllm_ms": "ms",
}


@pytest.mark.skipif("TEST_VLLM" not in os.environ, reason="starts vLLM: make test-vllm")
@pytest.mark.parametrize("shape", ["smollm2", "128x2"])
def test_composing_is_measured_against_vllms_own_loading(shape, hf_base):
    report = bench.measure(Options(rounds=2, vllm_shape=shape), ("compose-vllm",), lambda *_: None)
    assert report.left_out == {}
    assert {name: metric.unit for name, metric in report.metrics.items()} == COMPOSING
    assert report.metrics["reweigh_over_load_vllm"].n == 2
    assert report.metrics["load_vllm_ms"].n == 8


def test_a_shape_that_is_none_is_refused_with_an_example():
    for shape in ("smollm3", "2048", "100x4", "2048x0"):
        result = run("--vllm-shape", shape)
        assert result.returncode == 2
        assert "as in 2048x16" in result.stderr
