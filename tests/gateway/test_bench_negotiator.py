"""``kiki bench negotiator`` on a few of the recorded panels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.assets import ModelFiles
from gateway.bench.panel_recording import record
from gateway.cli import cli
from gateway.settings import load_settings
from kiki.errors import RequestError
from negotiator.panel_cases import PANELS


def test_it_shows_how_panels_decide_and_which_threshold_fits(
    tmp_path: Path, model_files: ModelFiles
) -> None:
    few = tmp_path / "panels.jsonl"
    lines = PANELS.read_text(encoding="utf-8").splitlines()
    few.write_text("\n".join(lines[:12]) + "\n", encoding="utf-8")
    found = CliRunner().invoke(cli, ["bench", "negotiator", "--json", "--panels", str(few)])
    assert found.exit_code == 0, found.output
    metrics = json.loads(found.stdout)["metrics"]
    assert {"catfish_rate", "consensus", "judged", "calibrated_catfish_below"} <= set(metrics)
    assert all(metric["n"] == 12 for metric in metrics.values())


def test_a_file_without_panels_is_refused_with_the_fix(
    tmp_path: Path, model_files: ModelFiles
) -> None:
    empty = tmp_path / "panels.jsonl"
    empty.touch()
    result = CliRunner().invoke(cli, ["bench", "negotiator", "--panels", str(empty)])
    assert isinstance(result.exception, RequestError)
    assert "--record" in str(result.exception)


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"question": "q", "adapters": ["shell"], "expect": ["("]}']
)
def test_a_prompt_that_is_none_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(line + "\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["bench", "negotiator", "--prompts", str(prompts)])
    assert isinstance(result.exception, RequestError)
    assert "line 1" in str(result.exception)


def test_a_recording_that_is_whole_records_nothing_anew(
    tmp_path: Path, model_files: ModelFiles
) -> None:
    copy = tmp_path / "panels.jsonl"
    copy.write_bytes(PANELS.read_bytes())
    assert record(load_settings(), copy, lambda *_: None) == 0
    assert copy.read_bytes() == PANELS.read_bytes()
