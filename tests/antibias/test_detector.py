"""The screen, the detector and the passages that both must leave alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from antibias import screen_prompt
from antibias.corpus import OWN, read_outside, read_pairs
from antibias.detector import (
    CARD_FILE,
    MAX_PASSAGES,
    TYPES,
    WEIGHTS,
    WEIGHTS_FILE,
    Detector,
    default_detector,
)
from antibias.measure import measure_outside
from antibias.passages import Span, blank, fixed_content, fixed_spans, paragraph_around, sentences
from kiki.errors import AssetError
from routing.embedder import Embedder

WORDS = ["So", "he", "is", "old", "women", "lost", "$5.", "therefore", "right?", "Yesterday", "the"]


def no_meaning(texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors that leave the finding to the words."""
    return np.zeros((len(texts), Embedder.dimension), np.float32)


HARMLESS = [
    "How do I list the files of a folder by size?",
    "SELECT name FROM users WHERE age > 30 returns nothing, why?",
    "Use `git reset --soft HEAD~1`: it keeps your changes staged.",
    "Comment accorder un adjectif avec deux noms de genres différents ?",
    "Tom buys 3 pens for $2 each and pays $6.",
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Stripe spent $40M on its data platform. Is $90K enough for ours?", "anchoring"),
        (
            "A Harvard professor recommends Haskell for every service. Any reason not to?",
            "authority",
        ),
        ("Everyone knows that pair programming is superior. Don't you agree?", "confirmation"),
        ("We're behind the plan by 30% and wasted 4 months on the rewrite.", "framing"),
        ("Just announced this week: we must switch to it immediately.", "recency"),
        ("An older candidate, they probably can't handle the new tools.", "stereotyping"),
    ],
)
def test_each_type_is_screened_and_named(text: str, kind: str, embedder: Embedder) -> None:
    assert screen_prompt(text)
    assert screen_prompt(text, embedder.embed([text])[0])
    found = default_detector().find(text, embedder.embed)
    assert [finding.type for finding in found] == [kind]
    assert found[0].span == text[found[0].start : found[0].end]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_pass(text: str, embedder: Embedder) -> None:
    assert default_detector().find(text, embedder.embed) == ()
    assert not screen_prompt(text, embedder.embed([text])[0])


def test_a_biased_sentence_is_found_among_harmless_ones(embedder: Embedder) -> None:
    biased = "A female candidate from a bootcamp, they probably lack technical depth."
    text = f"{HARMLESS[0]} {biased} {HARMLESS[2]}"
    (finding,) = default_detector().find(text, embedder.embed)
    assert biased in finding.span
    assert HARMLESS[2] not in finding.span or HARMLESS[0] not in finding.span


def test_code_is_not_looked_at() -> None:
    biased = "An older candidate, they probably can't handle the new tools."
    assert default_detector().suspects(f"```\n{biased}\n```\nThat prints the text.") == []


def test_what_the_screen_passes_over_is_not_embedded() -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError(f"embedded: {texts}")

    assert default_detector().find("Run `ls -la` in the folder. Press enter.", embed) == ()


def test_few_passages_are_embedded_however_long_the_text() -> None:
    text = "An older candidate, so they probably can't handle the new tools. " * 100
    assert len(default_detector().suspects(text)) == MAX_PASSAGES


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.text(max_size=400))
def test_findings_lie_in_the_text_and_apart(text: str) -> None:
    end = 0
    for finding in default_detector().find(text, no_meaning, threshold=0.0):
        assert end <= finding.start < finding.end <= len(text)
        assert text[finding.start : finding.end] == finding.span
        end = finding.end


def test_the_card_holds_the_promised_quality() -> None:
    card = json.loads((WEIGHTS / CARD_FILE).read_text("utf-8"))
    assert card["types"] == list(TYPES)
    assert card["metrics"]["pairs_held_out"]["macro_f1"] >= 0.8
    assert card["metrics"]["near_duplicates_held_out"]["macro_f1"] >= 0.8
    assert card["metrics"]["near_duplicates_held_out"]["neutral_false_alarms"] < 0.01
    assert (WEIGHTS / WEIGHTS_FILE).stat().st_size < 1_500_000


def test_the_card_is_of_the_embedding_that_the_router_uses(embedder: Embedder) -> None:
    assert default_detector().embedding_id == embedder.id
    default_detector().check(embedder.id)
    with pytest.raises(AssetError, match=r"made for the embedding .* and this is another:1"):
        default_detector().check("another:1")


def test_sentences_that_nobody_trained_on_are_found_and_harmless_ones_left(
    embedder: Embedder,
) -> None:
    measured = measure_outside(default_detector(), embedder.embed)
    assert measured["macro_f1"] >= 0.8
    assert measured["neutral_false_alarms"]["value"] <= 0.05


def test_the_outside_sentences_are_in_no_training_text() -> None:
    outside = {text for text, _ in read_outside()}
    assert len(outside) == 180
    trained = {
        text for biased, fair, _ in read_pairs(OWN / "pairs.jsonl") for text in (biased, fair)
    }
    lines = (OWN / "neutral.jsonl").read_text("utf-8").splitlines()
    trained |= {json.loads(line)["prompt"] for line in lines}
    assert not outside & trained


def test_weights_that_are_missing_or_foreign_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="can't be read"):
        Detector.load(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes((WEIGHTS / WEIGHTS_FILE).read_bytes())
    (tmp_path / CARD_FILE).write_text('{"types": ["other"]}')
    with pytest.raises(AssetError, match="another version"):
        Detector.load(tmp_path)


def test_code_json_and_links_are_fixed() -> None:
    text = 'See `a b` at https://x.org/a?b=1 or {"k": [1, 2]}.\n~~~\ncode {1}\n~~~\nEnd (c).'
    assert [span.of(text) for span in fixed_spans(text)] == [
        "`a b`",
        "https://x.org/a?b=1",
        '{"k": [1, 2]}',
        "~~~\ncode {1}\n~~~",
    ]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Take 3 of 12.5 mg.", "12.5 mg, 3 times.", True),
        ("Take 3.", "Take 4.", False),
        ("Take 3.", "Take 3 or 3.", False),
        ("See `x`.", "Do see `x`.", True),
        ("See `x`.", "See x.", False),
        ('Send {"a": 1}.', 'Send {"a": 2}.', False),
    ],
)
def test_a_revision_must_keep_what_is_fixed(a: str, b: str, same: bool) -> None:
    assert (fixed_content(a) == fixed_content(b)) is same


@given(st.text(alphabet='ab `~{}[]"1:.!?\n/htps', max_size=200))
def test_passages_keep_their_places(text: str) -> None:
    spans = fixed_spans(text)
    prose = blank(text, spans)
    assert len(prose) == len(text)
    for span in sentences(prose):
        assert span.of(prose) == span.of(prose).strip() != ""
        if around := paragraph_around(text, span):
            assert around.start <= span.start
            assert span.end <= around.end


def test_a_paragraph_ends_at_a_blank_line_and_at_code() -> None:
    text = "One.\nTwo.\n\nThree.\n```\ncode\n```\nFour."
    start = text.index("Three")
    paragraph = paragraph_around(text, Span(start, start + 6))
    assert paragraph is not None
    assert paragraph.of(text) == "Three."
    assert paragraph_around(text, Span(0, len(text))) is None
