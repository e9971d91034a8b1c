from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.conversation import (
    FORMULA,
    Conversations,
    Said,
    asked_last,
    context_of,
    share_of,
    words_of,
)
from routing.domains import load_domains
from routing.embedder import Embedder
from routing.router import Router
from routing.training import follow_ups as fitting
from routing.training.datasets import Dataset, follow_ups
from routing.training.measure import measure

PYTHON = (
    Said("user", "Write a Python function that counts the words of a file"),
    Said("assistant", "def count(path): return len(open(path).read().split())"),
)
LIGHT = (
    Said("user", "Allume la lampe du salon quand le capteur détecte quelqu'un (Home Assistant)"),
    Said("assistant", "Un déclencheur state sur binary_sensor.salon_motion et light.turn_on."),
)
TURNS = st.lists(
    st.builds(Said, st.sampled_from(["user", "assistant", "system"]), st.text(max_size=40)),
    max_size=6,
)


@pytest.fixture(scope="module")
def conversations(embedder: Embedder) -> Conversations:
    return Conversations(Router.load(embedding_id=embedder.id), embedder)


@pytest.mark.parametrize(
    ("before", "question", "first"),
    [
        (PYTHON, "and without reading it whole?", "python"),
        (PYTHON, "now in Rust", "rust"),
        (LIGHT, "merci, et avec un timer ?", "iot"),
    ],
)
def test_a_follow_up_keeps_or_moves_the_route(
    conversations: Conversations, before: tuple[Said, ...], question: str, first: str
) -> None:
    assert conversations.route(question, before).decision.scores[0].name == first


def test_follow_ups_are_routed_better_than_by_either_plain_way(
    conversations: Conversations, embedder: Embedder
) -> None:
    rows = tuple(follow_ups(load_domains(), tuned=False))
    found = measure(Dataset("follow-ups", "", rows), embedder, conversations, lambda *_: None)
    assert found.report.top1 is not None
    assert found.report.top1 > max(found.baselines.values())


def test_a_first_turn_is_routed_by_itself_to_the_bit(
    conversations: Conversations, embedder: Embedder
) -> None:
    question = "How do I sort a list of dictionaries by a key?"
    routed = conversations.route(question)
    assert routed.decision == conversations.router.route(embedder.embed([question])[0], question)
    assert routed.stickiness.share == 0
    assert not routed.advised
    np.testing.assert_array_equal(routed.vector, embedder.embed([question])[0])


def test_both_ways_to_call_it_decide_alike(conversations: Conversations) -> None:
    async def heard() -> object:
        return conversations.decide(await conversations.hear("now in Rust", PYTHON)).decision

    assert asyncio.run(heard()) == conversations.route("now in Rust", PYTHON).decision


def test_a_plain_turn_and_one_that_leaves_are_read_alone(conversations: Conversations) -> None:
    for question in (
        "Explain in some detail how Rust's borrow checker decides that two mutable references to "
        "the same vector may not live at the same time in one function, with an example of each",
        "perfect. by the way, who won the football match last night?",
    ):
        assert conversations.route(question, PYTHON).stickiness.share == 0
    assert conversations.route("why?", PYTHON).stickiness.share > 0.9


def test_without_an_earlier_question_there_is_no_context() -> None:
    assert context_of("why?", PYTHON) is not None
    assert context_of("why?", ()) is None
    assert context_of("why?", (Said("system", "You are kind."),)) is None


def test_the_context_reaches_back_to_the_topic_and_holds_the_reply() -> None:
    chat = (*PYTHON, Said("user", "thanks"), Said("assistant", "You're welcome!"))
    context = context_of("faster?", chat)
    assert context is not None
    assert context.startswith(PYTHON[0].text)
    assert context.endswith("thanks\nYou're welcome!\nfaster?")


@given(st.text(max_size=300), st.floats(-9, 9))
def test_a_longer_or_plainer_turn_gives_the_conversation_no_larger_share(
    text: str, log_odds: float
) -> None:
    words = words_of(text)
    assert 1 <= words <= words_of(text + " and more")
    share = share_of(words, log_odds)
    assert 0 <= share_of(words_of(text + " and more"), log_odds) <= share <= 1
    assert share_of(words, log_odds + 1) <= share


def test_white_space_before_a_turn_makes_no_difference(conversations: Conversations) -> None:
    blank = "\n" * 1000
    assert words_of(f"{blank}now in Rust") == words_of("now in Rust")
    spaced = [Said(said.role, blank + said.text) for said in PYTHON]
    assert context_of("faster?", spaced) == context_of("faster?", PYTHON)
    moved = conversations.route(f"{blank}now in Rust", PYTHON).decision
    assert moved.scores == conversations.route("now in Rust", PYTHON).decision.scores


def test_the_formula_is_near_the_one_that_fits_the_tuned_half_best(
    conversations: Conversations, embedder: Embedder
) -> None:
    table = load_domains()
    tuned, others = (
        fitting.read(follow_ups(table, tuned=half), embedder, conversations)
        for half in (True, False)
    )
    fitted = fitting.fit(tuned)
    shipped = fitting.measured(tuned, FORMULA)
    assert fitted.loss <= shipped.loss <= fitted.loss * 1.1
    alone, joined = (fitting.loss(tuned, (bias, 0.0, 0.0)) for bias in (-100.0, 100.0))
    assert fitted.loss < min(alone, joined)
    assert fitting.measured(others, FORMULA).top1 > 0.8


@settings(deadline=None)
@given(TURNS, st.text(max_size=60))
def test_any_conversation_has_a_context_or_none(before: list[Said], question: str) -> None:
    context = context_of(question, before)
    asked = any(said.role == "user" and said.text.strip() for said in before)
    assert (context is not None) is asked
    if context is not None:
        assert context.endswith(question)


def test_the_last_user_turn_is_what_is_asked() -> None:
    messages = [{"role": said.role, "content": said.text} for said in PYTHON]
    assert asked_last(messages) == (PYTHON[0].text, ())
    assert asked_last([*messages, {"role": "user", "content": "why"}]) == ("why", PYTHON)
    with pytest.raises(ValueError, match="role user"):
        asked_last(messages[1:])


def test_a_content_may_be_parts_or_null_as_openai_writes_them() -> None:
    asked = [{"type": "text", "text": "now"}, {"type": "text", "text": "in Rust"}]
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": None},
        {"role": "user", "content": asked},
    ]
    assert asked_last(messages) == ("now\nin Rust", (Said("assistant", ""),))
    wrong: list[Any] = [
        7,
        [{"type": "image_url", "image_url": {}}],
        [{"text": None}],
        {"text": "a"},
    ]
    for content in wrong:
        with pytest.raises((KeyError, TypeError)):
            asked_last([{"role": "user", "content": content}])
