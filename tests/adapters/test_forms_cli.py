from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adapters.catalog import SHIPPED
from adapters.forms import form_of, read_lora, write_lora
from gateway.cli import cli
from kiki.errors import AdapterError
from tests.adapters.forms_lora import LLAMA, assert_same_numbers, make_lora


def convert(*arguments: str | Path) -> Result:
    words = ["adapters", "convert", *map(str, arguments)]
    result = CliRunner().invoke(cli, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_an_adapter_is_converted_there_and_back_and_told_about(base_gguf, tmp_path):
    mlx, gguf, back = tmp_path / "mlx", tmp_path / "a.gguf", tmp_path / "back"
    told = convert(SHIPPED / "shell", "--to", "mlx", "--out", mlx).output
    assert told == (
        f"Wrote {mlx} (mlx, {sum(file.stat().st_size for file in mlx.iterdir()):,} bytes): "
        "rank 16, alpha 16, numbers in f16.\n"
    )
    convert(mlx, "--to", "gguf", "--out", gguf, "--base", base_gguf)
    told = convert(gguf, "--to", "peft", "--out", back, "--json").output
    assert json.loads(told) == {
        "path": str(back),
        "form": "peft",
        "bytes": sum(file.stat().st_size for file in back.iterdir()),
        "rank": 16,
        "alpha": 16.0,
        "dtype": "f16",
        "rounding": 0.0,
        "dropped": [],
    }
    assert_same_numbers(read_lora(back), read_lora(SHIPPED / "shell"))


def test_the_base_in_the_settings_is_the_one_meant(base_gguf, tmp_path):
    convert(SHIPPED / "sql", "--to", "gguf", "--out", tmp_path / "a.gguf")
    assert_same_numbers(read_lora(tmp_path / "a.gguf"), read_lora(SHIPPED / "sql"))


def test_what_rounding_costs_is_told(tmp_path):
    write_lora(make_lora(LLAMA), "mlx", tmp_path / "a")
    told = convert(tmp_path / "a", "--to", "peft", "--out", tmp_path / "b", "--dtype", "f16").output
    assert "numbers in f16" in told
    assert "largest rounding error of a number is 0.0" in told


def test_nothing_is_replaced_without_force(tmp_path):
    write_lora(make_lora(LLAMA), "mlx", tmp_path / "a")
    with pytest.raises(AdapterError, match=r"is there already.*--force"):
        convert(SHIPPED / "shell", "--to", "peft", "--out", tmp_path / "a")
    assert form_of(tmp_path / "a") == "mlx"
    convert(SHIPPED / "shell", "--to", "peft", "--out", tmp_path / "a", "--force")
    assert form_of(tmp_path / "a") == "peft"


def test_help_shows_an_example():
    assert "--to mlx --out shell-mlx\n" in convert("--help").output
