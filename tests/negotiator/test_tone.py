"""Strong words are found and taken out of prose, and code is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negotiator.tone import neutral, strength


@pytest.mark.parametrize(
    ("text", "strong"),
    [
        ("Use a list.", 0),
        ("Absolutely! Use a list.", 2),
        ("Obviously, this is a terrible idea!!", 3),
        ("Malheureusement, c'est horrible.", 2),
        ("Run `echo perfect!` and `a != b`.", 0),
        ("Great 🎉", 2),
    ],
)
def test_strong_words_exclamations_and_emoji_count(text: str, strong: int) -> None:
    assert strength(text) == strong


def test_what_is_neutral_says_the_same_without_them() -> None:
    assert neutral("Obviously, use `a!` here!") == "use `a!` here."


WORDS = st.lists(
    st.sampled_from(["bread", "Obviously,", "great", "🎉", "rises!", "`a!`", "évidemment"])
)


@given(WORDS)
def test_a_neutral_text_has_no_tone_left_and_all_of_its_code(words: list[str]) -> None:
    text = neutral(" ".join(words))
    assert strength(text) == 0
    assert text.count("`a!`") == words.count("`a!`")
