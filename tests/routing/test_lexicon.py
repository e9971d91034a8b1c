from __future__ import annotations

import itertools
import json
import re
import unicodedata
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.lexicon import BUCKETS, CHARACTERS, KEPT_LETTERS, Lexicon, counts, quantised
from routing.neighbours import DATA
from routing.training.words import fit_lexicon

TEXTS = (
    "SELECT name FROM users WHERE id = 3",
    "SELECT count(*) FROM orders WHERE paid",
    "borrow checker rejects my mutable reference",
    "the borrow checker and a mutable closure",
    "what shall I cook tonight",
    "what shall we eat tonight",
)
TARGETS = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]], np.float32)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return fit_lexicon(TEXTS, TARGETS, seed=0)


def test_words_that_were_seen_speak_for_their_output(lexicon: Lexicon) -> None:
    query, rust = lexicon.logits("SELECT id FROM orders")
    assert query > 0 > rust
    query, rust = lexicon.logits("why does the borrow checker complain?")
    assert rust > 0 > query


def test_a_text_of_which_nothing_is_known_says_nothing(lexicon: Lexicon) -> None:
    assert lexicon.logits("").tolist() == [0, 0]
    assert lexicon.logits("Ωμέγα").tolist() == [0, 0]


def test_case_and_accents_make_no_difference(lexicon: Lexicon) -> None:
    assert counts("Débogage") == counts("debogage")
    assert lexicon.logits("SÉLECT") == pytest.approx(lexicon.logits("select"))


def by_definition(text: str) -> Counter[int]:
    """The features one by one: words, pairs of words, pieces of each different word."""
    decomposed = unicodedata.normalize("NFKD", text[:CHARACTERS]).lower()
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    words = re.findall(r"[^\W_]+[+#]*|[^\w\s]", plain)
    features = [*words, *(f"{first} {second}" for first, second in itertools.pairwise(words))]
    for word in {word for word in words if len(word) > 1}:
        marked = f"<{word}>"
        for length in (3, 4, 5):
            features += [f"{marked[at : at + length]}\0" for at in range(len(marked) - length + 1)]
    return Counter(zlib.crc32(one.encode("utf-8", "replace")) % BUCKETS for one in features)


@given(text=st.text())
def test_any_text_has_its_words_pairs_and_pieces(text: str) -> None:
    assert counts(text) == by_definition(text)


def test_prompts_have_their_words_pairs_and_pieces_first_and_again() -> None:
    lines = (DATA / "python.jsonl").read_text(encoding="utf-8").split("\n")
    prompts = [json.loads(line)["prompt"] for line in lines if line][:200]
    prompts.append("a word of more letters than are kept: " + "ab" * KEPT_LETTERS)
    for _ in range(2):
        assert [counts(prompt) for prompt in prompts] == [by_definition(p) for p in prompts]


def test_the_same_texts_give_the_same_weights(lexicon: Lexicon) -> None:
    again = fit_lexicon(TEXTS, TARGETS, seed=0)
    assert again.codes.tobytes() == lexicon.codes.tobytes()
    assert again.scale.tobytes() == lexicon.scale.tobytes()


def test_of_a_long_text_the_beginning_counts(lexicon: Lexicon) -> None:
    start = "select " * CHARACTERS
    assert lexicon.logits(start + "borrow checker " * 100_000) == pytest.approx(
        lexicon.logits(start)
    )


@given(text=st.text())
def test_any_text_gives_finite_logits_and_a_vector_of_length_one(text: str) -> None:
    weights = np.random.default_rng(0).normal(size=(BUCKETS, 3)).astype(np.float32)
    rounded = quantised(weights, np.ones(BUCKETS, np.float32))
    places, values = rounded.weigh(text)
    assert np.isfinite(rounded.logits(text)).all()
    assert not values.size or float(values @ values) == pytest.approx(1, rel=1e-5)
    assert rounded.logits(text) == pytest.approx(values @ weights[places], abs=0.1)
