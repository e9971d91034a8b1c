"""What records come to: numbers, words and the page."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from gateway.evaluation.page import as_text as question_as_text
from gateway.evaluation.page import page
from gateway.evaluation.report import TOO_SMALL, as_text, summary

STAGES = [
    {"name": "negotiate", "decision": {"skipped": "one candidate"}},
    {"name": "antibias", "decision": {"action": "none"}},
]
MANIFEST = {
    "model": {"name": "small <model>"},
    "adapters": {},
    "split": "all",
    "seed": 0,
    "kiki_options": {},
}


def outcome(answer: str | None, right: bool, **details: Any) -> dict[str, Any]:
    return {
        "output": f"I say {answer}",
        "answer": answer,
        "right": right,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cut": False,
        "seconds": 1.0,
        "details": details,
    }


def gsm8k(number: int, raw: bool, full: bool) -> dict[str, Any]:
    return {
        "id": f"gsm8k/{number}",
        "benchmark": "gsm8k",
        "unit": f"gsm8k/{number}",
        "prompt": "How <many>?",
        "expected": "3",
        "facts": {},
        "asked": "2026-01-01T00:00:00+00:00",
        "arms": {
            "raw": outcome("3" if raw else "4", raw),
            "full": outcome("3" if full else "4", full, plan="single", adapters={}, stages=STAGES),
        },
    }


def bbq(number: int, condition: str, polarity: str, raw: str, full: str) -> dict[str, Any]:
    facts = {"condition": condition, "polarity": polarity, "target": 0, "other": 1}
    expected = "C" if condition == "ambig" else "A"
    arms = {
        arm: outcome(answer, answer == expected, plan="single", adapters={}, stages=STAGES)
        for arm, answer in (("raw", raw), ("full", full))
    }
    return gsm8k(number, True, True) | {
        "id": f"bbq/Age/{number}",
        "benchmark": "bbq",
        "unit": f"bbq/Age/{number // 4}",
        "expected": expected,
        "facts": facts,
        "arms": arms,
    }


def test_a_difference_that_chance_explains_is_too_small_to_tell():
    rows = [gsm8k(i, raw=i < 3, full=i < 5) for i in range(10)]
    found = summary(rows)["gsm8k"]
    assert found["arms"]["raw"]["accuracy"]["value"] == 30
    (gap,) = found["differences"]
    assert (gap["arm"], gap["than"]) == ("full", "raw")
    assert gap["points"]["value"] == 20
    assert (gap["only_first"], gap["only_second"], gap["p"]) == (2, 0, 0.5)
    assert gap["verdict"] == TOO_SMALL


@pytest.mark.parametrize("better", [True, False])
def test_a_difference_beyond_chance_has_a_name(better):
    rows = [gsm8k(i, raw=not better or i > 9, full=better or i > 9) for i in range(20)]
    (gap,) = summary(rows)["gsm8k"]["differences"]
    assert (gap["only_first"], gap["only_second"]) == ((10, 0) if better else (0, 10))
    assert gap["verdict"] == ("better" if better else "worse")


def test_bias_and_disparity_by_hand():
    scenes = []
    for scene in range(8):
        at = 4 * scene
        # raw always names the target where nothing is known: with the stereotype in the negative
        # framing, against it in the other; full says that it isn't known.
        scenes += [
            bbq(at, "ambig", "neg", "A", "C"),
            bbq(at + 1, "disambig", "neg", "A", "A"),
            bbq(at + 2, "ambig", "nonneg", "A", "C"),
            bbq(at + 3, "disambig", "nonneg", "A", "B"),
        ]
    found = summary(scenes)["bbq"]["bias"]
    raw, full = found["arms"]["raw"], found["arms"]["full"]
    assert found["n_ambiguous"] == 16
    assert raw["bias_ambiguous"]["value"] == 0  # +1 and -1 cancel
    assert raw["framing_disparity"]["value"] == 2  # and only the framings show it
    assert full["bias_ambiguous"]["value"] == full["framing_disparity"]["value"] == 0
    assert full["bias_disambiguated"]["value"] == 1
    assert (raw["accuracy_ambiguous"]["value"], full["accuracy_ambiguous"]["value"]) == (0, 100)
    change = found["full_less_raw"]["framing_disparity"]
    assert (change["value"], change["verdict"]) == (-2, "less biased")
    assert found["full_less_raw"]["bias_disambiguated"]["verdict"] == "more biased"


def test_the_page_shows_pictures_and_the_questions_that_differ():
    rows = [gsm8k(i, raw=i != 1, full=i != 2) for i in range(4)]
    html = page(MANIFEST, summary(rows), rows)
    pictures = re.findall("<svg.*?</svg>", html, re.DOTALL)
    assert len(pictures) == 2
    for picture in pictures:
        assert len(list(ElementTree.fromstring(picture).iter())) > 8
    assert "Lost by full: 1" in html
    assert "Won by full: 1" in html
    assert "gsm8k/2" in html
    assert "small &lt;model&gt;" in html
    assert "How <many>" not in html  # what a model or a file says is text
    assert "src=" not in html
    assert "@import" not in html


def test_the_text_names_what_was_decided():
    text = as_text(summary([gsm8k(0, True, True)]))
    assert "gsm8k: 1 questions" in text
    assert TOO_SMALL in text
    assert "How <many>?" in question_as_text(gsm8k(0, True, False))
    assert "full: wrong" in question_as_text(gsm8k(0, True, False))


def test_stages_are_counted():
    counts = summary([gsm8k(i, True, True) for i in range(3)])["gsm8k"]["stages"]
    assert counts["plan"] == {"single: base": 3}
    assert counts["negotiate"] == {"one candidate": 3}
    assert counts["antibias"] == {"none": 3}
