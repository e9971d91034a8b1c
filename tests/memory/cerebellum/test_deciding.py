"""The model decides when it answers in time and to the schema; else the rules do, counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from memory.cerebellum import Cerebellum

Answer = Callable[[dict[str, object]], str]


class Model:
    """A model that answers what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def __call__(
        self, messages: Sequence[tuple[str, str]], *, timeout_s: float, **how: object
    ) -> str:
        self.asked.append(messages[-1][1])
        return self._answer({"timeout_s": timeout_s, **how})


def late(_: object) -> str:
    raise TimeoutError


def down(_: object) -> str:
    raise ConnectionError("refused")


def test_the_model_decides_when_it_answers() -> None:
    model = Model(lambda _: json.dumps({"action": "SAVE", "keep": [2]}))
    cerebellum = Cerebellum(model)
    kept = cerebellum.memorize("What a lovely day. The sky over Ghent was red.")
    assert [one.text for one in kept] == ["The sky over Ghent was red."]
    assert cerebellum.counts == {"model": 1}


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (late, "late"),
        (down, "failed"),
        (lambda _: "SAVE it!", "junk"),
        (lambda _: "[]", "junk"),
        (lambda _: '{"action": "MAYBE", "keep": [1], "new": "yes"}', "junk"),
    ],
)
def test_late_absent_or_junk_leaves_the_rules(answer: Answer, counted: str) -> None:
    cerebellum = Cerebellum(Model(answer))
    assert [one.text for one in cerebellum.memorize("My dog is called Rex.")] == [
        "My dog is called Rex."
    ]
    verdict = cerebellum.arbitrate("My dog is called Max.", "My dog is called Rex.", 0.9)
    assert verdict.action == "UPDATE"
    assert cerebellum.counts == {counted: 2, "rules": 2}


def test_the_model_is_given_its_time_and_a_schema() -> None:
    seen: list[dict[str, object]] = []

    def answer(how: dict[str, object]) -> str:
        seen.append(how)
        return json.dumps({"action": "NONE", "new": False})

    Cerebellum(Model(answer), timeout_s=0.25).arbitrate("I like tea.", "J'aime le thé.", 0.4)
    assert seen[0]["timeout_s"] == 0.25
    assert seen[0]["json_schema"]


def test_secrets_and_pasted_text_never_reach_the_model() -> None:
    model = Model(lambda _: json.dumps({"action": "SAVE", "keep": [1]}))
    cerebellum = Cerebellum(model)
    assert cerebellum.memorize("My password is hunter2, remember that.") == []
    assert cerebellum.memorize("```\nmy code is here\n```") == []
    assert model.asked == []


def test_warming_up_waits_for_the_first_answer_and_gives_up_in_time() -> None:
    answers = iter([down, lambda _: '{"action": "NONE", "new": false}'])
    assert Cerebellum(Model(lambda how: next(answers)(how))).warm_up(5.0)
    assert not Cerebellum(Model(down)).warm_up(0.2)
    assert Cerebellum().warm_up(0.0)
