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
def prompts(tmp_path: Path) -> Path:
    """A folder of prompts of one's own to spoil."""
    folder = tmp_path / "data"
    shutil.copytree(validation.DATA, folder)
    return folder


@pytest.fixture
def router(tmp_path: Path) -> Path:
    """A table and weights of one's own to spoil, without prompts."""
    shutil.copytree(PACKAGED, tmp_path / "weights")
    shutil.copyfile(TABLE, tmp_path / "domains.toml")
    return tmp_path


def append(folder: Path, name: str, *rows: object) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        for row in rows:
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")


def test_what_is_shipped_agrees() -> None:
    table, findings = validation.validate()
    assert table is not None
    assert [str(found) for found in findings if found.level == "wrong"] == []


def test_a_prompt_may_hold_a_unicode_end_of_line(prompts: Path) -> None:
    line = json.dumps(row(prompt="one\u2028two\u0085three"), ensure_ascii=False)
    append(prompts, "rust.jsonl", line)
    _, findings = validation.validate(data=prompts)
    assert [str(found) for found in findings if found.level == "wrong"] == []


def row(**changes: object) -> dict[str, object]:
    return {"prompt": "a prompt of its own", "domains": ["rust"], "lang": "en"} | changes


def test_prompts_that_do_not_agree_are_named_by_file_and_line(prompts: Path) -> None:
    append(prompts, "cpp.jsonl", row(domains=["cpp", "oxide"]), row(prompt="its label is wrong"))
    append(prompts, "dsp.jsonl", row(prompt="im Filter", domains=["dsp"], lang="de"), "no JSON")
    append(prompts, "emc.jsonl", row(prompt=" "), row(domains=["emc", "emc"]))
    append(prompts, "oxide.jsonl", row(prompt="rust"))
    append(prompts, "multi.jsonl", row(prompt="twice"), row(prompt="TWICE "))
    short = (prompts / "rust.jsonl").read_text(encoding="utf-8").splitlines()[:70]
    (prompts / "rust.jsonl").write_text("\n".join(short), encoding="utf-8")
    _, findings = validation.validate(data=prompts)
    found = {(finding.rule, Path(finding.where.split(",")[0]).name) for finding in findings}
    assert found >= {
        ("domain-name", "cpp.jsonl"),
        ("label", "cpp.jsonl"),
        ("language", "dsp.jsonl"),
        ("row", "dsp.jsonl"),
        ("row", "emc.jsonl"),
        ("file", "oxide.jsonl"),
        ("repeat", "multi.jsonl"),
        ("prompts", "rust.jsonl"),
    }
    assert sum(finding.rule == "row" for finding in findings) == 3
    assert all(finding.message and finding.fix for finding in findings)


def test_prompts_that_changed_since_the_training_are_a_note(prompts: Path) -> None:
    append(prompts, "rust.jsonl", row(kind="question"))
    _, findings = validation.validate(data=prompts)
    assert "older-weights" in {f.rule for f in findings if f.level == "note"}


def rename_output(folder: Path) -> None:
    path = folder / "domains.toml"
    text = path.read_text(encoding="utf-8").replace('output = "rust"', 'output = "oxide"')
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("weights", rename_output),
        ("weights", lambda f: (f / "weights" / "card.json").unlink()),
        ("index", lambda f: (f / "weights" / "prompts.safetensors").write_bytes(b"")),
        ("table", lambda f: (f / "domains.toml").write_text("[[domain]")),
    ],
)
def test_table_weights_and_index_that_do_not_fit_are_named(
    router: Path, rule: str, spoil: Callable[[Path], object]
) -> None:
    def wrong() -> set[str]:
        _, findings = validation.validate(
            table_file=router / "domains.toml", weights=router / "weights", data=router / "data"
        )
        return {found.rule for found in findings if found.level == "wrong"}

    assert rule not in wrong()
    spoil(router)
    assert rule in wrong()
