"""``kiki adapters check``, ``angle``, ``gate`` and ``sweep`` as they are typed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from adapters.catalog import SHIPPED
from adapters.forms import read_base_shape, read_lora, write_lora
from gateway.cli import cli

WEIGHTS = "adapter_model.safetensors"
SHELL, SQL = str(SHIPPED / "shell"), str(SHIPPED / "sql")
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def adapters(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["adapters", *arguments])


def told(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two healthy adapters, one full of zeros, one of NaN, and one cut off."""
    for name in ("shell", "sql"):
        shutil.copytree(SHIPPED / name, tmp_path / name)
    for name, value in (("zeros", 0.0), ("nan", np.nan)):
        shutil.copytree(SHIPPED / "cpp", tmp_path / name)
        tensors = load_file(tmp_path / name / WEIGHTS)
        spoiled = {n: np.full_like(t, value) if "lora_B" in n else t for n, t in tensors.items()}
        save_file(spoiled, tmp_path / name / WEIGHTS)
    shutil.copytree(SHIPPED / "cpp", tmp_path / "cut")
    with (tmp_path / "cut" / WEIGHTS).open("r+b") as file:
        file.truncate(1000)
    return tmp_path


def test_check_of_the_shipped_adapters_finds_all_six_healthy():
    result = adapters("check", str(SHIPPED), "--base", BASE)
    assert result.exit_code == 0
    assert "6 adapters: 6 healthy, 0 sick, 0 unreadable." in result.stdout


def test_check_tells_the_sick_from_the_unreadable(folder):
    result = adapters("check", str(folder), "--json")
    assert result.exit_code == 3
    states = {row["name"]: row["state"] for row in told(result)}
    assert states == {
        "cut": "unreadable",
        "nan": "sick",
        "shell": "healthy",
        "sql": "healthy",
        "zeros": "sick",
    }
    rows = {row["name"]: row for row in told(result)}
    assert rows["zeros"]["findings"][0]["code"] == "zero-b"
    assert len(rows["zeros"]["findings"][0]["where"]) == 120
    assert (rows["shell"]["rank"], rows["shell"]["layers"], len(rows["shell"]["kinds"])) == (
        16, 30, 4,
    )  # fmt: skip


def test_check_names_the_first_modules_and_counts_the_rest(folder):
    result = adapters("check", str(folder / "zeros"))
    assert result.exit_code == 3
    assert "lora_B is all zeros in every module" in result.stdout
    assert "and 117 more" in result.stdout


def test_check_of_something_unreadable_exits_with_1(folder):
    assert adapters("check", str(folder / "cut"), SHELL).exit_code == 1
    (folder / "empty").mkdir()
    result = adapters("check", str(folder / "empty"))
    assert result.exit_code == 1
    assert "holds no adapter" in result.stdout


def test_check_reports_an_adapter_whose_weights_are_missing(folder):
    (folder / "sql" / WEIGHTS).unlink()
    rows = told(adapters("check", str(folder), "--json"))
    assert [row["state"] for row in rows if row["name"] == "sql"] == ["unreadable"]


def test_check_against_another_base_finds_it_sick():
    result = adapters("check", SHELL, "--base", "Qwen/Qwen3.6-35B-A3B", "--json")
    assert result.exit_code == 3
    assert told(result)[0]["findings"][0]["code"] == "wrong-base"


def test_check_against_a_base_file_misses_the_kinds_that_it_has(base_gguf):
    result = adapters("check", SHELL, "--base", str(base_gguf), "--json")
    assert result.exit_code == 0
    (finding,) = told(result)[0]["findings"]
    assert (finding["level"], finding["code"]) == ("warning", "missing-kinds")
    assert finding["where"] == ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]


def test_angle_shows_each_kind_with_a_bar_and_gives_the_same_numbers_as_json():
    result = adapters("angle", SHELL, SQL)
    report = told(adapters("angle", SHELL, SQL, "--json"))
    assert result.exit_code == 0
    assert f"shell and sql: {report['mean']:.1f} degrees" in result.stdout
    for kind in report["kinds"]:
        line = next(line for line in result.stdout.splitlines() if kind["kind"] in line)
        assert line.split()[1] == f"{kind['degrees']:.1f}"
    assert "█" in result.stdout


def test_the_form_of_an_adapter_does_not_matter(base_gguf, tmp_path):
    lora = read_lora(SHIPPED / "shell")
    write_lora(lora, "mlx", tmp_path / "as-mlx")
    write_lora(lora, "gguf", tmp_path / "as-gguf.gguf", base=read_base_shape(base_gguf))
    result = adapters("check", str(tmp_path), "--base", BASE, "--json")
    assert result.exit_code == 0
    assert {row["name"]: row["findings"] for row in told(result)} == {"as-gguf": [], "as-mlx": []}
    result = adapters("sweep", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert told(result)["closest"]["degrees"] == pytest.approx(0, abs=1e-4)
    gate = adapters("gate", str(tmp_path / "as-gguf.gguf"), "--prior-dir", str(SHIPPED), "--json")
    verdicts = {prior["name"]: prior["verdict"] for prior in told(gate)["priors"]}
    assert verdicts.pop("shell") == "angle"  # it is the same adapter under another name
    assert set(verdicts.values()) == {"pass"}


def test_the_gate_as_a_program_exits_with_its_verdict():
    command = [sys.executable, "-m", "gateway", "adapters", "gate", SHELL]
    passed = subprocess.run(
        [*command, "--prior-dir", str(SHIPPED), "--json"], capture_output=True, text=True
    )
    assert passed.returncode == 0, passed.stderr
    report = json.loads(passed.stdout)
    assert (report["verdict"], report["exit_code"]) == ("pass", 0)
    names = [prior["name"] for prior in report["priors"]]
    assert names == ["chat-fr", "cpp", "python", "spice", "sql"]  # not the one of its own name


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--prior", SQL], 0, "PASS"),
        ([], 0, "no prior adapter to compare with"),
        (["--prior", SHELL], 1, "measure the win rate"),
        (["--prior", SHELL, "--win-rate-drop", "0.03"], 1, "the win rate held"),
        (["--prior", SQL, "--win-rate-drop", "0.04"], 2, "WIN RATE"),
        (["--prior", SHELL, "--win-rate-drop", "0.04"], 2, "ROLL BACK"),
        (["--prior", SQL, "--min-angle", "85"], 1, "under 85"),
        (["--prior", SHELL, "--win-rate-drop", "0.04", "--max-drop", "0.1"], 1, "held"),
        (["--prior", SQL, "--base", "gpt2"], 3, "UNHEALTHY"),
    ],
)
def test_the_gates_exit_codes(arguments, code, said):
    result = adapters("gate", SHELL, *arguments)
    assert result.exit_code == code, result.output
    assert said in result.stdout


def test_the_gate_refuses_the_sick_and_the_unreadable(folder):
    for name in ("zeros", "nan", "cut"):
        assert adapters("gate", str(folder / name), "--prior", SQL).exit_code == 3


def test_the_gate_reads_win_rates_by_prior(tmp_path):
    file = tmp_path / "rates.json"
    file.write_text('{"sql": {"before": 0.5, "after": 0.4}}')
    result = adapters("gate", SHELL, "--prior-dir", str(SHIPPED), "--win-rates", str(file))
    assert result.exit_code == 2
    assert "fell by 0.100" in result.stdout
    file.write_text('{"sq": 0.1}')
    result = adapters("gate", SHELL, "--prior-dir", str(SHIPPED), "--win-rates", str(file))
    assert result.exit_code == 4
    assert "Did you mean sql" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing-here"],
        [SHELL, "--prior", "nothing-here"],
        [SHELL, "--win-rate-drop", "5"],
        [SHELL, "--win-rate-drop", "nan"],
        [SHELL, "--no-such-option"],
        [],
    ],
)
def test_a_wrong_call_of_the_gate_is_no_verdict(arguments):
    assert adapters("gate", *arguments).exit_code == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option", "adapters", "gate", SHELL],
        ["adapter", "gate", SHELL],
        ["adapters", "--json", "gate", SHELL],
        ["adapters", "gat", SHELL],
    ],
)
def test_what_is_wrong_before_the_command_is_none_of_its_verdicts(arguments):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 64
    assert "Error" in result.stderr


def test_check_of_a_path_that_is_not_there_is_a_wrong_call_as_its_help_says():
    result = adapters("check", "nothing-here")
    assert result.exit_code == 2
    assert "nothing-here" in result.stderr
    assert "2  a wrong call: a path that isn't there" in adapters("check", "--help").stdout


def test_the_gate_says_so_when_no_prior_can_be_compared(folder):
    result = adapters("gate", SHELL, "--prior", str(folder / "cut"))
    assert result.exit_code == 4
    assert "No prior adapter could be compared" in result.stderr
    result = adapters("gate", SHELL, "--prior-dir", str(folder))
    assert result.exit_code == 0
    assert "left out: cut" in result.stdout


def test_a_gate_that_could_compare_nothing_prints_no_verdict(folder, tmp_path):
    result = adapters("gate", SHELL, "--prior", str(folder / "cut"), "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert adapters("gate", SHELL, "--prior-dir", str(empty)).exit_code == 4
    assert adapters("gate", SHELL, "--prior", SHELL, "--min-angle", "nan").exit_code == 4


def test_sweep_prints_the_table_and_writes_json_and_picture(folder, tmp_path):
    out, svg = tmp_path / "matrix.json", tmp_path / "matrix.svg"
    result = adapters("sweep", str(folder), "--out", str(out), "--svg", str(svg))
    assert result.exit_code == 0
    assert "closest: shell and sql" in result.stdout
    assert "left out: zeros" in result.stdout
    content = json.loads(out.read_text())
    assert content["adapters"] == ["shell", "sql"]
    assert [one["name"] for one in content["left_out"]] == ["cut", "nan", "zeros"]
    assert svg.read_text().startswith("<svg")


def test_sweep_tells_a_close_pair_and_a_folder_without_pairs_by_their_codes(folder, tmp_path):
    assert adapters("sweep", str(folder), "--min-angle", "85").exit_code == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert adapters("sweep", str(empty)).exit_code == 4


def test_a_narrow_terminal_gets_each_adapters_nearest_one(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    result = adapters("sweep", str(SHIPPED))
    assert result.exit_code == 0
    assert "nearest" in result.stdout
    assert len(result.stdout.splitlines()) == 8
