"""``kiki memory`` on a folder that no gateway has open; with one: test_process.py."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import cli
from kiki.errors import AccessError, EngineUnavailableError, KikiError
from memory.lock import FolderLock

LINES = [
    '{"id": "a", "text": "My dog is called Rex.", "answer": "Nice.", "conversation": "c",'
    ' "time": "2026-05-01T10:00:00Z", "user": "kim"}',
    '{"id": "b", "text": "Line\u2028separator.", "conversation": "c", "time": 0, "user": "kim"}',
    '{"id": "x", "text": "I like tea.", "conversation": "c", "time": 0, "user": "lou"}',
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    assert "3 episodes are new" in run("import", "in.jsonl").output
    return tmp_path


def run(*arguments: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(cli, ["memory", *arguments], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def data(*arguments: str) -> list[dict[str, object]]:
    told = json.loads(run(*arguments, "--json").stdout)
    rows: list[dict[str, object]] = told["data"]
    return rows


def test_list_show_edit_and_search(folder: Path) -> None:
    assert [one["id"] for one in data("list", "--user", "kim")] == ["b", "a"]
    assert "My dog is called Rex." in run("list", "--user", "kim", "--since", "2026-01-01").output
    assert "Nice." in run("show", "a", "--user", "kim").output
    assert "Max" in run("edit", "a", "--user", "kim", "--text", "My dog is called Max.").output
    run("edit", "a", "--user", "kim", "--answer", "")
    assert "Nice." not in run("show", "a", "--user", "kim").output
    found = data("search", "What is my dog called?", "--user", "kim")
    assert found[0]["text"] == "My dog is called Max."
    with pytest.raises(KikiError, match="No memory has the id 'x'"):
        run("show", "x", "--user", "kim")


def test_conflicts_are_listed_where_there_are_any(folder: Path) -> None:
    assert data("list", "--conflicts", "--user", "kim") == []
    assert "Nothing is remembered here." in run("list", "--conflicts").stderr


def test_delete_asks_first(folder: Path) -> None:
    assert run("delete", "a", "--user", "kim", answer="n\n").exit_code == 1
    assert len(data("list", "--user", "kim")) == 2
    assert "1 episodes" in run("delete", "a", "--user", "kim", answer="y\n").output
    asked = run("delete", "--all", "--user", "kim", answer="n\n")
    assert "Delete all 1 episodes of the user 'kim'" in asked.stderr
    assert "1 episodes" in run("delete", "--all", "--user", "kim", "--yes").output
    assert data("list", "--user", "kim") == []
    assert len(data("list", "--user", "lou")) == 1
    assert run("delete", "--all", "--everyone", "--yes").exit_code == 0
    assert json.loads(run("status", "--everyone", "--json").stdout)["episodes"] == 0
    assert run("delete").exit_code == 2


def test_an_export_is_private_and_comes_back_as_it_was(folder: Path) -> None:
    assert "3 lines" in run("export", "out.jsonl", "--everyone").output
    assert stat.S_IMODE((folder / "out.jsonl").stat().st_mode) == 0o600
    before = data("list", "--user", "kim")
    assert run("delete", "--all", "--everyone", "--yes").exit_code == 0
    assert "3 episodes are new, 0 were there" in run("import", "out.jsonl").output
    assert data("list", "--user", "kim") == before
    assert "0 episodes are new, 3 were there" in run("import", "out.jsonl").output
    assert run("export", "-", "--user", "lou").stdout_bytes.count(b"\n") == 1


def test_a_folder_held_by_a_process_that_does_not_answer_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKI_PORT", "9")
    lock = FolderLock(folder / "data" / "memory")
    try:
        with pytest.raises(EngineUnavailableError, match=f"Process {os.getpid()} .* --url"):
            run("list")
    finally:
        lock.release()


def test_over_the_folder_too_the_key_in_use_says_whose_memory_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = CliRunner().invoke(cli, ["keys", "create", "anna", "--json"])
    monkeypatch.setenv("KIKI_API_KEY", json.loads(made.stdout)["key"])
    assert json.loads(run("list", "--user", "kim", "--json").stdout)["data"] == []
    monkeypatch.setenv("KIKI_API_KEY", "kiki_anna_" + 64 * "0")
    with pytest.raises(AccessError):
        run("list", "--user", "kim", "--json")
