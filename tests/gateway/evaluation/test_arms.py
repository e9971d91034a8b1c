"""The controls spend what full spent, and the arms run on the real engine."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gateway.assets import ModelFiles
from gateway.cli import cli
from gateway.evaluation.arms import (
    ARMS,
    JUDGE_TOKENS,
    Outcome,
    Said,
    affordable,
    affordable_with_judge,
    majority,
)
from gateway.evaluation.bbq import Bbq
from gateway.evaluation.gsm8k import Gsm8k
from gateway.evaluation.humaneval import HumanEval
from gateway.evaluation.pipeline_arms import kiki_options
from gateway.evaluation.question import Benchmark, Question
from gateway.evaluation.records import RunFolder
from gateway.evaluation.report import summary
from gateway.evaluation.running import Chosen, Plan, ask_all, manifest
from gateway.services import Services
from kiki.errors import EngineUnavailableError, EvaluationError
from tests.gateway.evaluation.samples import BBQ_ROWS, GSM8K_ROWS, HUMANEVAL_ROWS, write_lines
from tests.waiting import until

QUESTION = Question("q", "q", "How many?", "3")
RAW = Outcome("3", "3", True, 100, 50, False, 1.0)


@given(st.integers(0, 5000), st.integers(1, 500), st.integers(1, 500))
def test_controls_spend_about_what_full_spent(budget, prompt, completion):
    raw = Outcome("", None, False, prompt, completion, False, 1.0)
    samples = affordable(budget, raw)
    if 1 < samples < 16:
        assert abs(samples * raw.tokens - budget) <= raw.tokens / 2
    judged = affordable_with_judge(budget, raw)
    if 1 < judged < 16:
        spent = judged * (raw.tokens + completion) + prompt + JUDGE_TOKENS
        assert abs(spent - budget) <= (raw.tokens + completion) / 2
    assert 1 <= judged <= samples <= 16


def test_where_full_spent_what_raw_did_the_controls_are_raw():
    assert affordable(RAW.tokens, RAW) == affordable_with_judge(RAW.tokens, RAW) == 1


@pytest.mark.parametrize(
    ("texts", "taken"),
    [
        (["2", "3", "3.0"], "3"),
        (["2", "3"], "2"),  # of equals the first
        (["none", "5", "none"], "5"),  # what comes to no answer has no vote
        (["none", "nothing"], "none"),
    ],
)
def test_the_majority_counts_extracted_answers(texts, taken):
    samples = [Said(text, 10, 5) for text in texts]
    chosen = majority(Gsm8k(), QUESTION, samples)
    assert chosen.text == taken
    assert chosen.tokens == 15 * len(texts)
    assert chosen.details["samples"] == texts


def test_what_the_evaluation_sets_itself_is_refused():
    assert kiki_options({"negotiate": True}) == {"negotiate": True}
    for wrong in ({"memory": True}, {"negotiat": True}, {"adapters": [1]}):
        with pytest.raises(EvaluationError, match=next(iter(wrong))):
            kiki_options(wrong)


async def test_every_arm_answers_on_the_real_engine(
    services: Services, model_files: ModelFiles, tmp_path: Path
):
    write_lines(tmp_path / "Age.jsonl", BBQ_ROWS)
    gsm8k = write_lines(tmp_path / "gsm8k", GSM8K_ROWS[:1])
    humaneval = write_lines(tmp_path / "humaneval", HUMANEVAL_ROWS)
    benchmarks: list[tuple[Benchmark, Path]] = [
        (Bbq(), tmp_path),
        (Gsm8k(), gsm8k),
        (HumanEval(), humaneval),
    ]
    chosen = [Chosen(one, one.read(path)[:1], "", 8) for one, path in benchmarks]
    # No votes: they take minutes here. What the stages do is tested with the stages.
    panel = {"adapters": {"shell": 0.5, "python": 0.5}, "plan": "panel", "negotiate": False}
    plan = Plan(chosen, ARMS, "all", 0, panel)
    folder = RunFolder.create(tmp_path / "run", manifest(plan, services, model_files))
    seen: list[tuple[str, int, int]] = []
    await ask_all(
        services, plan, folder, parallel=3, progress=lambda *counted: seen.append(counted)
    )
    records = folder.records()
    assert {record["benchmark"] for record in records} == {"bbq", "gsm8k", "humaneval"}
    assert seen[-1][1:] == (1, 1)
    for record in records:
        raw, full = record["arms"]["raw"], record["arms"]["full"]
        assert set(record["arms"]) == set(ARMS)
        assert raw["details"]["plan"] == "single"
        assert raw["details"]["adapters"] == {}
        assert full["details"]["plan"] == "panel"
        assert len(full["details"]["candidates"]) == 2
        assert full["prompt_tokens"] > raw["prompt_tokens"]
        assert len(record["arms"]["self-consistency"]["details"]["samples"]) >= 2
        assert [stage["name"] for stage in full["details"]["stages"]][-1] == "write"
    numbers = summary(records)
    assert all(found["n"] == 1 for found in numbers.values())
    before = (folder.path / "records.jsonl").read_bytes()
    await ask_all(services, plan, folder, parallel=1, progress=lambda *counted: None)
    assert (folder.path / "records.jsonl").read_bytes() == before  # nothing is asked twice


# A shell's background job ignores Ctrl-C, and so would its children.
KIKI = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gateway.cli import main; main()"
)


def test_a_run_that_was_killed_or_interrupted_goes_on(tmp_path: Path):
    gsm8k = write_lines(tmp_path / "gsm8k.jsonl", GSM8K_ROWS * 4)
    run = tmp_path / "run"
    command = [sys.executable, "-c", KIKI, "eval", "cognitive", "--gsm8k", str(gsm8k)]
    command += ["--arms", "raw,full", "--max-tokens", "4", "--parallel", "1", "--out", str(run)]
    records = run / "records.jsonl"

    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asyncio.run(until(lambda: lines_in(records) >= 1, seconds=120))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = records.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]

    interrupted = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    before = lines_in(records)
    asyncio.run(until(lambda: lines_in(records) > before, seconds=120))
    interrupted.send_signal(signal.SIGINT)
    output, errors = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    assert "gsm8k: " in output  # what there is
    assert "the same command goes on" in errors

    finished = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["benchmarks"]["gsm8k"]["n"] == 12
    assert records.read_bytes().startswith(kept)  # nothing is asked twice
    assert (run / "report.html").is_file()
    shown = CliRunner().invoke(cli, ["eval", "cognitive", "show", str(run), "gsm8k/1"])
    assert shown.exit_code == 0
    assert "expected:\n1450.5" in shown.output


def lines_in(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


class FailsAtTheSecond(Gsm8k):
    """An engine that goes away."""

    def extract(self, question: Question, text: str) -> str | None:
        if question.id == "gsm8k/1":
            raise EngineUnavailableError("The engine is down.")
        return super().extract(question, text)


async def test_an_engine_that_goes_away_costs_the_questions_in_work_alone(
    services: Services, model_files: ModelFiles, tmp_path: Path
):
    benchmark = FailsAtTheSecond()
    questions = benchmark.read(write_lines(tmp_path / "gsm8k", GSM8K_ROWS))
    plan = Plan([Chosen(benchmark, questions, "", 2)], ("raw", "full"), "all", 0, {})
    folder = RunFolder.create(tmp_path / "run", manifest(plan, services, model_files))
    with pytest.raises(EngineUnavailableError, match="is down"):
        await ask_all(services, plan, folder, parallel=1, progress=lambda *counted: None)
    assert [record["id"] for record in folder.records()] == ["gsm8k/0"]


def test_a_wrong_call_says_what_to_do(tmp_path: Path):
    run = CliRunner().invoke(cli, ["eval", "cognitive"])
    assert run.exit_code == 2
    assert "--bbq" in run.output
    gsm8k = write_lines(tmp_path / "gsm8k.jsonl", GSM8K_ROWS)
    for options, word in (
        (["--arms", "raw"], "name both"),
        (["--arms", "raw,ful"], "'ful'"),
        (["--kiki", "[]"], "an object"),
    ):
        run = CliRunner().invoke(cli, ["eval", "cognitive", "--gsm8k", str(gsm8k), *options])
        assert run.exit_code == 2
        assert word in run.output
