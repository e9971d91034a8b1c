"""A run's folder keeps what was answered, and takes no answers of another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.evaluation.records import RunFolder
from kiki.errors import EvaluationError

MANIFEST = {
    "model": {"name": "small", "sha256": "aa"},
    "split": "even",
    "benchmarks": {"bbq": {"sha256": "bb", "max_tokens": 64}},
}


def test_records_come_back_as_they_were(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    folder.append({"id": "bbq/1", "text": "é\u2028"})
    folder.append({"id": "bbq/2", "text": ""})
    again = RunFolder.create(tmp_path / "run", MANIFEST)
    assert [record["id"] for record in again.records()] == ["bbq/1", "bbq/2"]
    assert again.record("bbq/1")["text"] == "é\u2028"


def test_a_torn_line_is_cut_off_and_its_question_asked_again(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    folder.append({"id": "bbq/1"})
    with (folder.path / "records.jsonl").open("a") as file:
        file.write('{"id": "bbq/2", "arms": {"ra')
    assert [record["id"] for record in folder.records()] == ["bbq/1"]
    folder.mend()
    folder.append({"id": "bbq/2"})
    assert [record["id"] for record in folder.records()] == ["bbq/1", "bbq/2"]


def test_another_run_is_refused_with_what_differs(tmp_path: Path):
    RunFolder.create(tmp_path / "run", MANIFEST)
    other = MANIFEST | {"split": "odd", "model": {"name": "small", "sha256": "cc"}}
    with pytest.raises(EvaluationError) as refused:
        RunFolder.create(tmp_path / "run", other)
    assert "split: 'even' there, 'odd' here" in str(refused.value)
    assert "model.sha256" in str(refused.value)
    assert "--out" in str(refused.value)


def test_a_benchmark_may_be_added_and_must_stay_the_same(tmp_path: Path):
    RunFolder.create(tmp_path / "run", MANIFEST)
    added = MANIFEST | {"benchmarks": {"gsm8k": {"sha256": "dd", "max_tokens": 256}}}
    folder = RunFolder.create(tmp_path / "run", added)
    assert set(folder.manifest["benchmarks"]) == {"bbq", "gsm8k"}
    changed = MANIFEST | {"benchmarks": {"bbq": {"sha256": "ee", "max_tokens": 64}}}
    with pytest.raises(EvaluationError, match=r"benchmarks\.bbq\.sha256"):
        RunFolder.create(tmp_path / "run", changed)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(EvaluationError, match="other files"):
        RunFolder.create(tmp_path, MANIFEST)
    with pytest.raises(EvaluationError, match="no run"):
        RunFolder.open(tmp_path)


def test_two_processes_do_not_append_to_one_run(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    with (
        folder.lock(),
        pytest.raises(EvaluationError, match="Another process"),
        folder.lock(),
    ):
        pass


def test_an_unknown_question_is_named_with_near_ones(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    folder.append({"id": "bbq/Age/12"})
    with pytest.raises(EvaluationError, match="bbq/Age/12"):
        folder.record("bbq/age/12")
