"""Dissent: when it is called for, what it may change, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from kiki.budget import Budget
from kiki.errors import EngineError
from negotiator import Candidate, Panel, Prompt, Reply, Verdict, Vote, negotiate
from negotiator.catfish import CATFISH, UNSURE, arguments_strength, confidence, gate
from tests.negotiator.script import DIVIDED, TEA, TEN, Ruling, Script, apart, chooses, says

BARE = Candidate("The answer is 18.", ("shell",), 5)
SAME = Candidate("So she has 18 left.\n#### 18", ("python",), 9)
OTHER = "Bread also needs time to rise; bake it for forty minutes at 220 degrees."
CRITIQUE = "It says nothing of the time that the dough needs."

UNANIMOUS = {name: {TEN.text: "KEEP", TEA.text: "REFUSE"} for name in ("shell", "python")}
SOUND = "it names every ingredient that bread is made of, and both steps, for"
DISSENTS = [says(json.dumps({"critique": CRITIQUE})), says(OTHER)]


async def talk(
    script: Script,
    candidates: Sequence[Candidate] = (TEN, TEA),
    budget: Budget | None = None,
    **options: float,
) -> Verdict:
    panel = Panel(generate=script, embed=apart, **options)  # type: ignore[arg-type]
    budget = budget or Budget(100_000, 60)
    return await negotiate("How do I bake?", candidates, panel, budget=budget, seed=7)


def keeps(*arguments: str) -> list[Vote]:
    return [Vote(str(place), 0, "KEEP", said) for place, said in enumerate(arguments)]


@pytest.mark.parametrize(
    ("arguments", "strong"),
    [
        ((), 0.0),
        (("1", "good"), 0.0),
        ((SOUND, "ok"), 0.5),
        ((SOUND, SOUND), 0.5),
        ((SOUND, "the oven's temperature is right for a loaf of this size"), 1.0),
    ],
)
def test_an_argument_is_weak_when_it_says_little_or_repeats_another(
    arguments: Sequence[str], strong: float
) -> None:
    refused = Vote("x", 0, "REFUSE", "no draft of this kind says how long it takes")
    assert arguments_strength(TEN, 0, [*keeps(*arguments), refused]) == strong


def test_a_draft_that_nobody_voted_on_argues_for_itself() -> None:
    assert arguments_strength(BARE, 0, []) == 0.0
    reasoned = Candidate(
        "Yeast eats the sugar in the flour and gives off gas, so that the dough rises; bake it when"
        " it has doubled, because the heat then fixes the bubbles.",
        ("shell",),
        30,
    )
    assert arguments_strength(reasoned, 0, []) == 1.0


def test_confidence_grows_with_support_agreement_and_arguments() -> None:
    kept, refused = Vote("a", 0, "KEEP", ""), Vote("b", 0, "REFUSE", "")
    least = confidence(0, [refused, refused], 0.0, 0.0)
    divided = confidence(0, [kept, refused], 0.0, 0.0)
    assert least < divided < confidence(0, [kept, kept], 0.0, 0.0)
    assert divided < confidence(0, [kept, refused], 0.5, 0.0)
    assert divided < confidence(0, [kept, refused], 0.0, 0.5)
    assert (least, confidence(0, [kept, kept], 1.0, 1.0)) == (0.0, 1.0)


def test_the_gate_fires_on_cheap_agreement_and_on_doubt_and_not_on_sound_agreement() -> None:
    cheap = gate(TEN, 0, keeps("1", "1"), 0.5, at_once=True)
    sound = gate(TEN, 0, keeps(SOUND, f"{SOUND} the oven"), 0.5, at_once=True)
    doubt = gate(TEN, 0, [Vote("a", 0, "REFUSE", SOUND)], 0.2, at_once=False)
    assert (cheap.fired, sound.fired, doubt.fired) == (True, False, True)
    assert "weak arguments" in cheap.why
    assert doubt.confidence < UNSURE


@pytest.mark.parametrize(
    ("agreement", "tone"), [(0.1, "gentle"), (0.7, "moderate"), (0.95, "firm")]
)
def test_the_tone_is_firmer_the_more_the_panel_agrees(agreement: float, tone: str) -> None:
    assert gate(TEN, 0, [], agreement, at_once=False).strength == tone


async def test_sound_agreement_meets_no_dissent_and_costs_nothing_more() -> None:
    votes = Script(UNANIMOUS, [], argument=SOUND)
    verdict = await talk(votes)
    assert verdict.gate is not None
    assert verdict.gate.fired is (verdict.gate.confidence < UNSURE) is False
    assert (verdict.how, verdict.text, verdict.tokens) == ("consensus", TEN.text, 20)


async def test_dissent_joins_the_candidates_and_may_win() -> None:
    script = Script(UNANIMOUS, [*DISSENTS, chooses(OTHER), chooses(OTHER)])
    verdict = await talk(script)
    assert (verdict.how, verdict.dissent, verdict.text) == ("dissent", "overruled", OTHER)
    assert verdict.candidates[-1].authors == (CATFISH,)
    assert verdict.critique == CRITIQUE
    assert CRITIQUE in script.judged[-1].messages[-1][1]


async def test_dissent_that_doesnt_convince_leaves_the_answer() -> None:
    script = Script(UNANIMOUS, [*DISSENTS, *[chooses(TEN.text)] * 3])
    verdict = await talk(script)
    assert (verdict.how, verdict.dissent, verdict.text) == ("consensus", "kept", TEN.text)


async def test_a_judge_that_follows_the_order_leaves_the_answer() -> None:
    script = Script(UNANIMOUS, [*DISSENTS, *[chooses(TEN.text), chooses(OTHER)] * 2])
    verdict = await talk(script)
    assert (verdict.dissent, verdict.text) == ("kept", TEN.text)


async def test_the_dissent_sees_the_transcript_and_not_who_spoke() -> None:
    script = Script(UNANIMOUS, [*DISSENTS, *[chooses(TEN.text)] * 3])
    await talk(script)
    critique, alternative = script.judged[:2]
    assert TEN.text in critique.messages[-1][1]
    assert "on " in critique.messages[-1][1]
    assert "Assume that its answer has a flaw" in critique.messages[0][1]
    assert TEN.text not in alternative.messages[-1][1]
    assert "shell" not in str(script.judged)


async def test_drafts_that_agree_without_a_reason_meet_dissent() -> None:
    script = Script({}, [says('{"critique": "No step is shown."}'), says("The answer is 18.")])
    verdict = await talk(script, [BARE, SAME])
    assert (verdict.how, verdict.dissent, verdict.text) == ("agreement", "same answer", BARE.text)


async def test_a_threshold_of_0_leaves_doubt_alone() -> None:
    script = Script(DIVIDED, [chooses(TEA.text)] * 2)
    verdict = await talk(script, unsure=0.0)
    assert verdict.gate is not None
    assert not verdict.gate.fired


@pytest.mark.parametrize(
    "replies",
    [[says("junk")], [says("[]")], [says('{"critique": ""}')], [DISSENTS[0], says(" ")]],
    ids=["junk", "no object", "no critique", "no draft"],
)
async def test_dissent_that_says_nothing_leaves_the_answer(replies: list[Ruling]) -> None:
    verdict = await talk(Script(UNANIMOUS, replies))
    assert (verdict.how, verdict.dissent, verdict.text) == ("consensus", "no answer", TEN.text)


async def test_an_engine_that_fails_at_the_dissent_leaves_the_answer() -> None:
    class Broken(Script):
        async def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
            if prompts[0].adapter is None:
                raise EngineError("out of memory")
            return await super().__call__(prompts)

    verdict = await talk(Broken(UNANIMOUS, []))
    assert (verdict.how, verdict.dissent, verdict.text) == ("consensus", "no answer", TEN.text)
    assert verdict.note == "out of memory"


async def test_dissent_over_the_budget_is_not_asked_for() -> None:
    script = Script(UNANIMOUS, [])
    script.tokens = 450
    budget = Budget(1000, 60)
    verdict = await talk(script, budget=budget)
    assert (verdict.how, verdict.dissent, verdict.text) == ("consensus", "over budget", TEN.text)
    assert budget.exhausted == "tokens"
