from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from adapters.evaluation.measurement import PERPLEXITY, SOLVED
from adapters.evaluation.perplexity import (
    LONGEST_ROW,
    RowLoss,
    attached,
    perplexities,
    row_losses,
)
from adapters.evaluation.report import Subject, measure_tasks, measure_text
from adapters.evaluation.result import Result, two_sided
from adapters.evaluation.tasks import Expect, Outcome, Task, read_tasks
from adapters.forms import read_lora
from adapters.lora import Lora, LoraWeight
from adapters.policy import Policy
from adapters.training import trainer
from adapters.training.corpus import read_corpus
from gateway.assets import ModelFiles
from gateway.cli.adapters.eval import command
from kiki.errors import AdapterError
from kiki.names import same_base

# peft and transformers warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

ADAPTERS = Path(__file__).resolve().parents[2] / "adapters"
TASKS = sorted((ADAPTERS / "tasks").glob("*.jsonl"))
SHELL = ADAPTERS / "shipped" / "shell"
SUBJECT = Subject("shell", "SmolLM2-135M-Instruct.Q4_1", "tasks mine", "measured here")


def task_file(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def outcome(base: str, adapter: str) -> Outcome:
    return Outcome(Task("?", Expect(equals="yes")), base, adapter)


@pytest.mark.parametrize(
    ("expect", "right", "wrong"),
    [
        ({"contains": "ls -a"}, "Use ls -a here.", "Use LS -A here."),
        ({"contains": ["tar", "-x"]}, "tar -x", "tar -c"),
        ({"regex": r"^chmod \+x"}, "Like this:\nchmod +x a.sh", "first chmod +x a.sh"),
        ({"regex": "for.*done"}, "for i in 1\ndo :\ndone", "done for"),
        ({"equals": "yes"}, " yes\n", "yes."),
        ({"number": 1234.5}, "12 + 1222.5 = 1,234.5", "1234.5 less 1"),
        ({"number": 3.3, "tolerance": 0.05}, "about 3.31 V", "3.4 V"),
        ({"number": -2}, "x = -2", "no number"),
        ({"contains": "V", "number": 5}, "5 V", "5 A"),
    ],
)
def test_an_answer_is_right_when_every_check_passes(tmp_path, expect, right, wrong):
    (task,) = read_tasks(task_file(tmp_path, {"prompt": "?", "expect": expect})).tasks
    assert task.expect.met_by(right)
    assert not task.expect.met_by(wrong)


@given(st.floats(-1e9, 1e9), st.integers(-99, 99))
def test_the_last_number_of_an_answer_is_the_one_that_counts(number, earlier):
    expect = Expect(number=number, tolerance=abs(number) * 1e-9)
    assert expect.met_by(f"{earlier} and then {number!r}.")


@given(st.text(max_size=200))
def test_no_answer_makes_a_check_fail_with_an_error(answer):
    expect = Expect(("a",), re.compile("b"), None, 1.0)
    assert expect.met_by(answer) in (True, False)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"expect": {"number": 1}}, "no text under 'prompt'"),
        ({"prompt": "?"}, "'expect' says nothing to look for"),
        ({"prompt": "?", "expect": {"contain": "x"}}, "Did you mean contains"),
        ({"prompt": "?", "expect": {"number": 1, "tolerence": 1}}, "Did you mean tolerance"),
        ({"prompt": "?", "expected": {}}, "Did you mean expect"),
        ({"prompt": "?", "expect": {"regex": "("}}, "regex '('"),
        ({"prompt": "?", "expect": {"number": "1"}}, "Give a number"),
        ({"prompt": "?", "expect": {"contains": [1]}}, "contains is [1]"),
        ({"prompt": "?", "expect": {"equals": "a"}, "max_tokens": 0}, "max_tokens is 0"),
        ({"prompt": "?", "expect": {"equals": "a"}, "example": "b"}, "example doesn't pass: 'b'"),
    ],
)
def test_a_bad_task_is_named_with_its_line_and_what_to_write(tmp_path, row, said):
    good = {"prompt": "?", "expect": {"equals": "a"}}
    file = task_file(tmp_path, good, row)
    with pytest.raises(AdapterError) as caught:
        read_tasks(file)
    assert f"{file} line 2" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("file", TASKS, ids=lambda file: file.stem)
def test_shipped_tasks_can_be_solved_and_were_not_trained_on(file):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(read_tasks(file).tasks) == len(rows) >= 30
    assert all(row["example"] for row in rows)
    assert len({row["prompt"] for row in rows}) == len(rows)
    trained = [_words(row.prompt) for row in read_corpus(file.stem).training]
    for row in rows:
        words = _words(row["prompt"])
        assert max(len(words & other) / len(words | other) for other in trained) < 0.6


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower()))


def test_tasks_are_counted_for_both_and_told_apart():
    outcomes = [
        outcome("yes", "yes"),
        *[outcome("yes", "no")] * 6,
        outcome("no", "yes"),
        *[outcome("no", "no")] * 2,
    ]
    row = measure_tasks(SUBJECT, outcomes)
    assert (row.metric, row.n, row.base_score, row.adapter_score) == (SOLVED, 10, 70.0, 20.0)
    assert (row.only_base, row.only_adapter) == (6, 1)
    assert two_sided(row) == pytest.approx(2 * (7 + 1) / 128)
    assert Policy((row,)).base_only("shell", "SmolLM2-135M-Instruct") is None
    surer = measure_tasks(SUBJECT, outcomes * 3)
    assert Policy((surer,)).base_only("shell", "SmolLM2-135M-Instruct")


def test_an_interval_lies_below_zero_where_every_text_gained():
    losses = [RowLoss(20, 60.0 + i, 40.0 + i) for i in range(12)]
    row = measure_text(SUBJECT, losses, seed=0)
    assert row.base_score > row.adapter_score
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.difference <= row.high < 0
    assert perplexities(losses, 1) == perplexities(losses, 1)


def test_an_interval_holds_zero_where_gains_and_losses_balance():
    losses = [RowLoss(20, 50.0, 50.0 + 10 * (-1) ** i) for i in range(12)]
    row = measure_text(SUBJECT, losses, seed=0)
    assert row.low is not None
    assert row.high is not None
    assert row.low < 0 < row.high
    assert Policy((row,)).base_only("shell", "SmolLM2-135M-Instruct") is None


def test_an_adapter_that_gives_no_number_is_an_error_and_no_score():
    with pytest.raises(AdapterError, match="damaged"):
        measure_text(SUBJECT, [RowLoss(2, 3.0, float("nan"))] * 3, seed=0)


def test_only_whole_runs_of_enough_rows_may_be_written():
    row = measure_tasks(SUBJECT, [outcome("yes", "yes")] * 10)
    assert Result(row, 10, [{}] * 10).may_be_written
    assert not Result(row, 20, [{}] * 10).may_be_written
    assert not Result(replace(row, n=9), 9, [{}] * 9).may_be_written
    assert "10 of 20 tasks" in Result(row, 20, [{}] * 10).to_text()


@pytest.fixture(scope="module")
def torch_base(base_gguf: Path) -> tuple[Any, Any]:
    return trainer.load_base(base_gguf)


def test_held_out_answers_score_as_peft_scores_them(torch_base):
    from peft import PeftModel

    model, tokenizer = torch_base
    rows = [
        trainer.encode_row(tokenizer, row, LONGEST_ROW) for row in read_corpus("shell").held_out[:2]
    ]
    losses = list(row_losses(model, read_lora(SHELL), rows))
    found = perplexities(losses, 0)
    # The base is itself again between rows and afterwards.
    assert found.base == pytest.approx(trainer.measure_perplexity(model, rows), rel=1e-4)
    peft = PeftModel.from_pretrained(model, SHELL)
    expected = trainer.measure_perplexity(peft, rows)
    peft.unload()
    assert found.adapter == pytest.approx(expected, rel=1e-4)
    assert found.adapter < found.base


@pytest.mark.parametrize(
    ("module", "shape", "said"),
    [
        ("layers.0.self_attn.q_proj", (8, 8), "doesn't fit this base"),
        ("layers.99.self_attn.q_proj", (576, 576), "no dense layer of this base"),
        ("layers.0.mlp.switch_mlp.up_proj", (576, 576), "no dense layer of this base"),
    ],
)
def test_an_adapter_for_another_base_is_refused_and_leaves_the_base_as_it_was(
    torch_base, module, shape, said
):
    model, _ = torch_base
    outputs, inputs = shape
    weight = LoraWeight(module, np.zeros((2, inputs), "f4"), np.zeros((outputs, 2), "f4"))
    lora = Lora("odd", "", 2, 2.0, {module: weight})
    with pytest.raises(AdapterError, match=said), attached(model, lora):
        pass
    assert not any(part._forward_hooks for part in model.modules())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments))


def test_both_kinds_at_once_are_refused(tmp_path):
    file = str(task_file(tmp_path, {"prompt": "?", "expect": {"equals": "a"}}))
    result = run("shell", "--task", file, "--corpus", file)
    assert result.exit_code == 2
    assert "not both" in result.output


def test_a_corpus_of_another_ending_is_refused_with_what_it_should_be(tmp_path):
    (tmp_path / "mine.jsonl").write_text("not the file that was named")
    file = tmp_path / "mine.txt"
    file.write_text("{}")
    result = run("shell", "--corpus", str(file))
    assert result.exit_code == 2
    assert "mine.txt doesn't end in .jsonl" in " ".join(result.output.split())


def test_an_adapter_that_is_not_there_is_named_with_the_nearest(tmp_path):
    file = str(task_file(tmp_path, {"prompt": "?", "expect": {"equals": "a"}}))
    result = run("shel", "--task", file)
    assert isinstance(result.exception, AdapterError)
    assert "Did you mean shell" in str(result.exception)


TEN = [
    {"prompt": f"Say the number {n}.", "expect": {"regex": "."}, "max_tokens": 3} for n in range(10)
]


def test_a_task_file_is_measured_on_the_engine_and_written_into_the_policy(
    tmp_path, model_files: ModelFiles
):
    file, policy = task_file(tmp_path, *TEN), tmp_path / "policy.toml"
    result = run("shell", "--task", str(file), "--write", "--policy", str(policy), "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["n"], said["base_score"], said["adapter_score"]) == (10, 100.0, 100.0)
    assert any(row["base_answer"] != row["adapter_answer"] for row in said["rows"])
    (written,) = (row for row in Policy.load(policy).rows if row.benchmark == "tasks mine")
    assert (written.adapter, written.base_model) == ("shell", said["base_model"])
    assert same_base(written.base_model, "SmolLM2-135M-Instruct.Q4_1")
    assert isinstance(written.date, date)
    assert written.metric != PERPLEXITY


def test_ctrl_c_shows_what_was_measured_and_writes_nothing(
    tmp_path, monkeypatch, model_files: ModelFiles
):
    from adapters.evaluation import tasks

    whole = tasks.run_tasks

    async def interrupted(*arguments):
        done = 0
        async for found in whole(*arguments):
            yield found
            done += 1
            if done == 2:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(tasks, "run_tasks", interrupted)
    file, policy = task_file(tmp_path, *TEN), tmp_path / "policy.toml"
    # A shell's background jobs ignore Ctrl-C, and hand that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run("shell", "--task", str(file), "--write", "--policy", str(policy))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "2 of 10 tasks" in result.output
    assert not policy.exists()
