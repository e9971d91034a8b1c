"""``kiki memory eval --locomo``: what the command says of a file that it can't measure."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.memory_eval import command
from kiki.errors import RequestError


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(RequestError, match=r"other\.json"):
        CliRunner().invoke(command, ["--locomo", str(other)], catch_exceptions=False)


def test_a_model_has_no_part_in_recall(tmp_path: Path) -> None:
    path = tmp_path / "locomo.json"
    path.write_text("[]")
    result = CliRunner().invoke(command, ["--locomo", str(path), "--timeout-ms", "5"])
    assert result.exit_code == 2
    assert "--locomo measures recall" in result.output
