from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from routing import validation
from routing.domains import PACKAGED as TABLE
from routing.router import PACKAGED


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A table, weights and prompts of one's own to spoil."""
    shutil.copytree(validation.DATA, tmp_path / "data")
    shutil.copytree(PACKAGED, tmp_path / "weights")
    shutil.copyfile(TABLE, tmp_path / "domains.toml")
    return tmp_path


def rules(folder: Path) -> set[str]:
    """Of what is wrong in the copy."""
    _, findings = validation.validate(
        table_file=folder / "domains.toml", weights=folder / "weights", data=folder / "data"
    )
    assert all(found.message and found.fix and found.where for found in findings)
    return {found.rule for found in findings if found.level == "wrong"}


def append(folder: Path, name: str, *rows: object) -> None:
    with (folder / "data" / name).open("a", encoding="utf-8") as file:
        for row in rows:
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")


def test_what_is_shipped_agrees() -> None:
    table, findings = validation.validate()
    assert table is not None
    assert [str(found) for found in findings if found.level == "wrong"] == []


def row(**changes: object) -> dict[str, object]:
    return {"prompt": "a prompt of its own", "domains": ["rust"], "lang": "en"} | changes


def shorten(folder: Path) -> None:
    path = folder / "data" / "rust.jsonl"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:70]), "utf-8")


def rename_output(folder: Path) -> None:
    path = folder / "domains.toml"
    text = path.read_text(encoding="utf-8").replace('output = "rust"', 'output = "oxide"')
    path.write_text(text, encoding="utf-8")


SPOILS: list[tuple[str, Callable[[Path], object]]] = [
    ("domain-name", lambda f: append(f, "rust.jsonl", row(domains=["rust", "oxide"]))),
    ("label", lambda f: append(f, "rust.jsonl", row(domains=["cpp"]))),
    ("language", lambda f: append(f, "rust.jsonl", row(lang="de"))),
    ("row", lambda f: append(f, "rust.jsonl", row(prompt=" "))),
    ("row", lambda f: append(f, "rust.jsonl", "no JSON")),
    ("row", lambda f: append(f, "rust.jsonl", row(domains=["rust", "rust"]))),
    ("repeat", lambda f: append(f, "multi.jsonl", row(domains=[]), row(domains=[]))),
    ("file", lambda f: append(f, "oxide.jsonl", row())),
    ("prompts", shorten),
    ("weights", rename_output),
    ("weights", lambda f: (f / "weights" / "card.json").unlink()),
    ("index", lambda f: (f / "weights" / "prompts.safetensors").write_bytes(b"")),
    ("table", lambda f: (f / "domains.toml").write_text("[[domain]")),
]


@pytest.mark.parametrize(("rule", "spoil"), SPOILS)
def test_what_does_not_agree_is_named(
    copy: Path, rule: str, spoil: Callable[[Path], object]
) -> None:
    spoil(copy)
    assert rule in rules(copy)


def test_prompts_that_changed_since_the_training_are_a_note(copy: Path) -> None:
    append(copy, "rust.jsonl", row(kind="question"))
    _, findings = validation.validate(
        table_file=copy / "domains.toml", weights=copy / "weights", data=copy / "data"
    )
    assert "older-weights" in {found.rule for found in findings if found.level == "note"}
