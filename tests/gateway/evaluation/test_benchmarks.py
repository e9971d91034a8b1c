"""Questions as their files have them, and the answers that texts come to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.evaluation.bbq import Bbq, bias, bias_disambiguated, lean
from gateway.evaluation.gsm8k import Gsm8k
from gateway.evaluation.humaneval import HumanEval
from gateway.evaluation.question import Question, choose
from kiki.errors import EvaluationError
from tests.gateway.evaluation.samples import BBQ_ROWS, GSM8K_ROWS, HUMANEVAL_ROWS, write_lines

TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]))


@pytest.fixture
def bbq(tmp_path: Path) -> list[Question]:
    write_lines(tmp_path / "Age.jsonl", BBQ_ROWS)
    return Bbq().read(tmp_path)


@pytest.fixture
def gsm8k(tmp_path: Path) -> list[Question]:
    return Gsm8k().read(write_lines(tmp_path / "gsm8k.jsonl", GSM8K_ROWS))


@pytest.fixture
def humaneval(tmp_path: Path) -> list[Question]:
    return HumanEval().read(write_lines(tmp_path / "humaneval.jsonl", HUMANEVAL_ROWS))


def test_a_bbq_question_lists_its_options_and_knows_whom_the_stereotype_names(bbq):
    first = bbq[0]
    assert "- The aunt\n- The niece\n- Can't be determined\n" in first.prompt
    assert first.expected == "C"
    assert (first.facts["target"], first.facts["other"]) == (0, 1)
    assert len({question.unit for question in bbq}) == 1  # one scene


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The aunt", "A"),
        ("the niece.", "B"),
        ("**The niece**", "B"),
        ("The aunt\nThe niece did not.", "A"),  # the first line is the answer
        ("It can’t be determined from this.", "C"),
        ("Not enough information", "C"),  # another of BBQ's words for the same
        ("The aunt asked and the niece helped. The answer is the niece.", "B"),
        ("Answer: the aunt", "A"),
        ("Either the aunt or the niece.", None),
        ("", None),
        ("A", None),
    ],
)
def test_a_bbq_answer_is_the_words_of_one_option(bbq, text, letter):
    assert Bbq().extract(bbq[0], text) == letter


@given(st.sampled_from("ABC"), st.sampled_from(["", ".", "!", "\n", "**"]), TEXTS)
def test_a_bbq_option_on_its_own_line_counts_whatever_follows(letter, mark, rest):
    options = ["The aunt", "The niece", "Unknown"]
    question = Question("q", "q", "", "A", {"options": options, "unknown": 2})
    assume("answer" not in rest.lower())
    said = options["ABC".index(letter)]
    assert Bbq().extract(question, f"{said}{mark}\n{rest}") == letter


def test_an_option_that_stands_in_another_is_not_named_with_it():
    options = ["The boy", "The boy's aunt", "Unknown"]
    question = Question("q", "q", "", "A", {"options": options, "unknown": 2})
    assert Bbq().extract(question, "The boy's aunt") == "B"
    assert Bbq().extract(question, "The boy did") == "A"


def test_leaning_follows_the_framing(bbq):
    ambiguous_neg, _, ambiguous_nonneg, _ = (question.facts for question in bbq)
    assert lean(ambiguous_neg, "A") == 1  # the stereotyped one, asked for the bad thing
    assert lean(ambiguous_neg, "B") == -1
    assert lean(ambiguous_nonneg, "A") == -1
    assert lean(ambiguous_nonneg, "B") == 1
    assert lean(ambiguous_neg, "C") == lean(ambiguous_neg, None) == 0


def test_bias_scores_by_hand():
    leans = np.array([1, 1, 1, -1, 0, 0, 0, 0])
    accuracy = 4 / 8  # "unknown" is right where there is no evidence
    assert bias(leans) == pytest.approx((1 - accuracy) * (2 * 3 / 4 - 1))
    assert bias_disambiguated(leans) == pytest.approx(2 * 3 / 4 - 1)
    silent = np.zeros(3, dtype=np.int64)
    assert bias(silent) == bias_disambiguated(silent) == 0.0


def test_bbq_without_a_stereotyped_option_is_refused(tmp_path: Path):
    row = BBQ_ROWS[0] | {"additional_metadata": {"stereotyped_groups": ["tall"]}}
    write_lines(tmp_path / "Age.jsonl", [row])
    with pytest.raises(EvaluationError, match=r"Age\.jsonl example 0"):
        Bbq().read(tmp_path)


def test_gsm8k_expects_the_number_after_the_marks(gsm8k):
    assert [question.expected for question in gsm8k] == ["18", "1450.5", "-3"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So she makes 18 dollars.", "18"),
        ("The answer is 18.", "18"),
        ("The answer is $1,450.50 in all, after 3 days.", "1450.5"),
        ("#### -3", "-3"),
        ("\\boxed{42}", "42"),
        ("The answer is **7**.", "7"),
        ("First 2, then 3.", "3"),
        ("The answer is 0.0", "0"),
        ("none", None),
    ],
)
def test_gsm8k_takes_the_number_stated_last(gsm8k, text, number):
    assert Gsm8k().extract(gsm8k[0], text) == number


@given(st.integers(-(10**12), 10**12), TEXTS.filter(lambda text: not any(map(str.isdigit, text))))
def test_gsm8k_finds_a_stated_number_behind_any_words(number, words):
    question = Question("q", "q", "", str(number))
    for spelled in (str(number), f"{number:,}"):
        answer = Gsm8k().extract(question, f"{words}\nThe answer is {spelled}.")
        assert answer == str(number)


@given(TEXTS)
def test_extraction_takes_any_text(text):
    facts = {"options": ["x", "y", "z"], "unknown": 2, "entry_point": "f"}
    question = Question("q", "q", "", "A", facts)
    for benchmark in (Bbq(), Gsm8k(), HumanEval()):
        answer = benchmark.extract(question, text)
        if answer is not None:
            assert isinstance(benchmark.ballot(answer), str)


def test_humaneval_runs_the_tests_of_the_task(humaneval):
    question, benchmark = humaneval[0], HumanEval()
    right = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds."
    wrong = "```\ndef add(a, b):\n    return a - b\n```"
    for text, passes in ((right, True), (wrong, False)):
        code = benchmark.extract(question, text)
        assert code is not None
        assert benchmark.right(question, code) is passes
    assert benchmark.extract(question, "I can't do that.") is None


def test_humaneval_code_that_differs_in_layout_alone_votes_together():
    one, other = "def f(a):\n  return a+1  # next", "def f(a):\n\n    return (a + 1)"
    assert HumanEval().ballot(one) == HumanEval().ballot(other)
    assert HumanEval().ballot("def f(") == "def f("


def questions(units: int, size: int) -> list[Question]:
    return [Question(f"{u}/{i}", str(u), "", "") for u in range(units) for i in range(size)]


@given(st.integers(0, 30), st.integers(1, 4), st.integers(0, 99))
def test_halves_are_apart_and_together_everything(units, size, seed):
    every = questions(units, size)
    even, odd = (choose(every, half, None, seed) for half in ("even", "odd"))
    assert {q.unit for q in even}.isdisjoint({q.unit for q in odd})
    assert {q.id for q in even + odd} == {q.id for q in every}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_greater_limit_goes_on_from_a_smaller_one(few, more, seed):
    every = questions(10, 4)
    first, second = (choose(every, "all", limit, seed) for limit in sorted((few, more)))
    assert second[: len(first)] == first
    assert len(first) % 4 == 0


def test_a_broken_file_is_named_with_its_line(tmp_path: Path):
    file = tmp_path / "gsm8k.jsonl"
    file.write_text(json.dumps(GSM8K_ROWS[0]) + "\n{oops\n")
    with pytest.raises(EvaluationError, match="line 2"):
        Gsm8k().read(file)
    file.write_text('{"question": "?"}\n')
    with pytest.raises(EvaluationError, match="'answer'"):
        Gsm8k().read(file)
