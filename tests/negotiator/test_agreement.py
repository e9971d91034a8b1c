"""Agreement on final answers and, with the real embedder, on meaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from negotiator import Candidate, merge
from negotiator.agreement import AGREED, OPPOSED, agreement, similarity
from negotiator.answers import Stated, final_answer
from routing.embedder import Embedder

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parent / "agreement_pairs.jsonl").read_text("utf-8").splitlines()
]


async def test_no_contradiction_passes_for_agreement_and_paraphrases_do(embedder: Embedder) -> None:
    scores = [await agreement([pair["a"], pair["b"]], embedder.embed) for pair in PAIRS]
    apart = [score for score, pair in zip(scores, PAIRS, strict=True) if not pair["same"]]
    same = [score for score, pair in zip(scores, PAIRS, strict=True) if pair["same"]]
    assert max(apart) < AGREED
    assert sum(score >= AGREED for score in same) >= len(same) // 3


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = 18 dollars.\n#### 18", "18"),
        ("The answer is $1,250.00, since 5 * 250 = 1250.", "1250"),
        ("So \\boxed{-3.5} it is.", "-3.5"),
        ("First add 2 and 3.\nTom has 5 apples.", "5"),
        ("There are 3 reasons.\n\nNone of them counts.", None),
        ("", None),
    ],
)
def test_the_final_number_is_found(text: str, number: str | None) -> None:
    found = final_answer(text).number
    assert found == (Decimal(number) if number else None)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("The answer is 18.", "#### 18.0", 1.0),
        ("The answer is 18.", "The answer is 81.", 0.0),
        ("Yes, it does.", "No, it doesn't.", 0.0),
        ("It is safe.", "It is not safe.", OPPOSED),
        ("Pressure goes up.", "Pressure goes down.", OPPOSED),
        ("The answer is (B).", "Answer: B", 1.0),
        ("Answer: B", "Answer: C", 0.0),
        ("B", "Option B fits, because the current is lower.", 1.0),
        ("The answer is Paris.", "Answer: Paris, France", 1.0),
        ("The answer is Paris.", "The answer is Lyon.", OPPOSED),
        ("So \\boxed{18}.", "She makes 18 dollars.", 1.0),
        ("So \\boxed{18}.", "She makes 17 dollars.", 0.0),
        ("Yes, it is.", "Yes, since lists are objects.", 1.0),
        ("Yes, it goes up.", "Yes, it goes down.", OPPOSED),
        ("La réponse est oui.", "Answer: yes", 1.0),
        ("Use `rm -r`.", "Use `rm -i`.", 2 / 3),
        ("```py\nx = 1\n```", "```py\nx  =  1\n```", 1.0),
        ("```py\nreturn_ = 1\na + b\n```", "```py\nreturn_ = 1\na - b\n```", OPPOSED),
        ("Run this:\n```\nls -a\n```", "List them:\n```\nls -a\n```", 1.0),
        ("Run this:\n```\nls -a\n```", "Never run this:\n```\nls -a\n```", OPPOSED),
        ("All fine.", "All good.", 0.99),
    ],
)
def test_what_drafts_come_to_outweighs_how_alike_they_sound(
    a: str, b: str, expected: float
) -> None:
    assert similarity(final_answer(a), final_answer(b), 0.99) == pytest.approx(expected)
    assert similarity(final_answer(b), final_answer(a), 0.99) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("The answer is $1,250.00.", Stated("number", "1.25E+3")),
        ("Answer: **(C)**", Stated("option", "C")),
        ("Answer: A list of names.", Stated("phrase", "a list of names")),
        ("A. First do this.\nB. Then that.", None),
        ("The answer is that it depends on how much memory the machine has free.", None),
        ("The answer is: no.", Stated("yes or no", "no")),
        ("I think the answer is 5. No, the answer is 6.", Stated("number", "6")),
    ],
)
def test_what_is_called_the_answer_is_read_as_one(text: str, stated: Stated | None) -> None:
    assert final_answer(text).stated == stated


ANSWERS = st.sampled_from(["18", "-3.5", "A", "B", "yes", "no", "Paris"])


@given(ANSWERS, ANSWERS, st.text(st.characters(categories=["L", "Zs"])), st.floats(-1, 1))
def test_drafts_agree_on_a_stated_answer_when_it_is_the_same(
    a: str, b: str, prose: str, cosine: float
) -> None:
    first, second = (final_answer(f"{prose}\nThe answer is {answer}.") for answer in (a, b))
    assert (similarity(first, second, cosine) >= AGREED) == (a == b)


@given(st.text(), st.text(), st.floats(-1, 1))
def test_agreement_is_between_zero_and_one_whatever_the_text(a: str, b: str, cosine: float) -> None:
    assert 0.0 <= similarity(final_answer(a), final_answer(b), cosine) <= 1.0


async def test_the_two_that_agree_least_decide() -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])[: len(texts)]

    assert await agreement(["a", "b", "c"], embed) == pytest.approx(0.6)
    assert await agreement(["a"], embed) == 1.0


def test_drafts_that_differ_in_white_space_are_one() -> None:
    drafts = [
        Candidate("a b", ("shell",), 3),
        Candidate("c", ("sql",), 1),
        Candidate(" a\n b ", ("python", "shell"), 4),
    ]
    assert merge(drafts) == (
        Candidate("a b", ("shell", "python"), 7),
        Candidate("c", ("sql",), 1),
    )


def test_long_code_agrees_when_it_is_the_same_and_not_when_it_ends_in_something_else() -> None:
    lines = "\n".join(f"x{n} = compute(x{n - 1}, {n})" for n in range(1, 400))
    mine, same = f"```py\n{lines}\nx399 + 1\n```", f"Here:\n```py\n{lines}\nx399  +  1\n```"
    other = f"```py\n{lines}\nx399 - 1\n```"
    assert similarity(final_answer(mine), final_answer(same), 0.99) == 1.0
    assert similarity(final_answer(mine), final_answer(other), 0.99) == OPPOSED
