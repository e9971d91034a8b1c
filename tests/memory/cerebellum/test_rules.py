"""The rules keep what lasts, in both languages, and weigh it against what is stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.cerebellum import Cerebellum
from memory.cerebellum.arbitrate import arbitrate
from memory.cerebellum.concepts import read
from memory.cerebellum.memorize import MAX_KEPT, memorize, sentences
from memory.evaluation import arbitrate_cases, evaluate, memorize_cases
from routing.embedder import Embedder


def kept(text: str) -> list[str]:
    return [one.text for one in memorize(text)]


@pytest.mark.parametrize(
    "text",
    [
        "I work as a carpenter in Ghent.",
        "Notre base de données tourne sous MariaDB.",
        "Always reply in Dutch, please.",
        "En fait, mon train part à 7 h 40.",
        "The root cause was a stale DNS cache.",
        "Je pars au Portugal en août.",
    ],
)
def test_what_lasts_is_kept_whole(text: str) -> None:
    assert kept(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "Which carpenter would you choose?",
        "Écris un poème sur la mer.",
        "Thanks a million!",
        "If I were a carpenter, what would I earn?",
        "My password is correct horse battery staple.",
        "Mon mot de passe est azerty123.",
        "> I work as a carpenter in Ghent.",
        "```\nI work as a carpenter in Ghent.\n```",
        "fix(ui): I prefer rounded buttons",
        "",
        "?" * 5000,
    ],
)
def test_what_passes_is_skipped(text: str) -> None:
    assert kept(text) == []


def test_of_a_long_message_the_statements_alone_are_kept() -> None:
    text = (
        "Hello! I work as a carpenter in Ghent. Could you write me an invoice? "
        "My workshop is at Dok Noord 4.\n```python\nprint('my code')\n```\nThanks!"
    )
    assert kept(text) == ["I work as a carpenter in Ghent.", "My workshop is at Dok Noord 4."]


@given(st.text(max_size=3000))
def test_any_text_is_decided_and_little_is_kept(text: str) -> None:
    assert len(memorize(text)) <= MAX_KEPT
    assert all(sentence.strip() for sentence in sentences(text))


@given(st.text(min_size=1, max_size=200))
def test_a_statement_says_nothing_new_beside_itself(text: str) -> None:
    verdict = arbitrate(read(text), read(text), 1.0)
    assert verdict.action in ("NONE", "DELETE")


def test_another_person_is_another_fact() -> None:
    verdict = arbitrate(read("I live in Ghent."), read("My brother lives in Bruges."), 0.8)
    assert (verdict.action, verdict.added) == ("NONE", True)


def test_the_poorer_of_two_statements_is_not_taken() -> None:
    rich, poor = "My dog Rex is a beagle of three years.", "My dog Rex is a beagle."
    assert arbitrate(read(rich), read(poor), 0.9).added is False
    assert arbitrate(read(poor), read(rich), 0.9).action == "UPDATE"


def test_the_rules_reach_the_goal_on_both_halves_of_the_benchmark(embedder: Embedder) -> None:
    table = evaluate(Cerebellum(), embedder.embed, lambda *_: None)
    for task in ("memorize", "arbitrate"):
        assert table[task]["tune"]["accuracy"] >= 0.80
        assert table[task]["held_out"]["accuracy"] >= 0.80


def test_the_benchmark_is_large_bilingual_and_of_six_kinds_each() -> None:
    memorized, arbitrated = memorize_cases(), arbitrate_cases()
    assert len(memorized) >= 120
    assert len(arbitrated) >= 60
    assert len({case.kind for case in memorized}) == len({case.kind for case in arbitrated}) == 6
    french = sum(case.lang == "fr" for case in memorized)
    assert 0.4 <= french / len(memorized) <= 0.6
    for cases in (memorized, arbitrated):
        assert len({case.id for case in cases}) == len(cases)
