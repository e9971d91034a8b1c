"""Audits of the judge's verdict: when they are made, and what a hit leads to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from kiki.budget import Budget
from negotiator import Candidate, Vote
from negotiator.arbitration import Ruling, arbitrate, causes
from negotiator.ballot import Slate
from negotiator.judge import Case
from tests.negotiator.script import SQL, TEA, TEN, Script, chooses, says

LONG = Candidate(TEA.text * 3, ("python",), 27)
LOUD = Candidate("Absolutely! Definitely knead it, obviously, and bake it! Perfect!", ("cpp",), 15)


def keep(candidate: int, *specialists: str) -> list[Vote]:
    return [Vote(one, candidate, "KEEP", f"{one} is convinced") for one in specialists]


async def rule(
    candidates: Sequence[Candidate],
    votes: Sequence[Vote],
    script: Script,
    budget: Budget | None = None,
) -> Ruling:
    slate = Slate.shuffled("How do I bake?", candidates, 3)
    contenders = range(len(candidates))
    budget = budget or Budget(100_000, 60)
    return await arbitrate(slate, contenders, votes, judge=script, budget=budget)


def case(candidates: Sequence[Candidate], votes: Sequence[Vote] = ()) -> Case:
    return Case.of(Slate.shuffled("q", candidates, 1), range(len(candidates)), votes)


@pytest.mark.parametrize(
    ("candidates", "votes", "winner", "expected"),
    [
        ([TEN, TEA], [], 1, []),
        ([TEN, LONG], [], 1, ["verbosity"]),
        ([TEN, LONG], [], 0, []),
        ([TEN, TEA], keep(1, "shell", "sql"), 1, ["bandwagon"]),
        ([TEN, TEA], keep(1, "shell"), 1, []),
        ([TEN, TEA], keep(0, "shell", "sql"), 1, []),
        ([TEN, LOUD], [], 1, ["sentiment"]),
        ([TEN, LOUD], [], 0, ["sentiment"]),
    ],
)
def test_only_what_a_rule_gives_cause_for_is_audited(
    candidates: list[Candidate], votes: list[Vote], winner: int, expected: list[str]
) -> None:
    assert causes(case(candidates, votes), winner) == expected


async def test_a_verdict_without_cause_is_audited_for_position_alone() -> None:
    script = Script({}, [chooses(TEA.text)] * 2)
    ruling = await rule([TEN, TEA], [], script)
    assert ruling.winner == 1
    assert [(audit.bias, audit.outcome) for audit in ruling.audits] == [("position", "clean")]


async def test_a_verdict_that_follows_the_majority_is_made_again_with_the_analysis() -> None:
    votes = [*keep(1, "shell", "sql"), Vote("cpp", 1, "REFUSE", "not about bread")]
    alone = chooses(TEN.text)
    script = Script({}, [chooses(TEA.text), chooses(TEA.text), alone, alone, alone])
    ruling = await rule([TEN, TEA], votes, script)
    assert ruling.winner == 0
    assert [(a.bias, a.outcome, a.round) for a in ruling.audits] == [
        ("position", "clean", 1),
        ("bandwagon", "hit", 1),
        ("position", "clean", 2),
    ]
    assert (ruling.audits[1].winner, ruling.audits[1].instead) == (1, 0)
    assert "KEEP" not in script.judged[2].messages[-1][1]
    assert "the votes' counts" in script.judged[3].messages[-1][1]


async def test_a_verdict_that_is_the_same_without_counts_stands() -> None:
    script = Script({}, [chooses(TEA.text)] * 3)
    ruling = await rule([TEN, TEA], keep(1, "shell", "sql"), script)
    assert (ruling.winner, ruling.audits[-1].outcome) == (1, "clean")
    assert len(script.judged) == 3


async def test_tone_is_taken_out_for_the_audit_of_sentiment() -> None:
    def calm(shown: dict[str, str]) -> str:
        (draft,) = (text for text in shown if text != TEN.text)
        assert "!" not in draft
        assert "Absolutely" not in draft
        assert "knead it" in draft
        return json.dumps({"reason": "calmer", "winner": shown[TEN.text]})

    script = Script({}, [chooses(LOUD.text), chooses(LOUD.text), calm, *[chooses(TEN.text)] * 2])  # type: ignore[list-item]
    ruling = await rule([TEN, LOUD], [], script)
    assert ruling.winner == 0
    assert ("sentiment", "hit") in [(audit.bias, audit.outcome) for audit in ruling.audits]


async def test_a_judge_may_stand_by_a_long_draft_after_the_audit() -> None:
    check = says('{"analysis": "It repeats itself.", "biased": "Yes"}')
    script = Script({}, [chooses(LONG.text)] * 2 + [check] + [chooses(LONG.text)] * 2)
    ruling = await rule([TEN, LONG], [], script)
    assert ruling.winner == 1
    assert "decided again" in ruling.note
    assert "It repeats itself." in script.judged[3].messages[-1][1]


@pytest.mark.parametrize("reply", ["", "junk", "[]", '{"biased": "Yes"}', '{"winner": "Z"}'])
async def test_an_audit_that_answers_junk_leaves_the_verdict(reply: str) -> None:
    script = Script({}, [chooses(LONG.text)] * 2 + [says(reply)] * 2)
    ruling = await rule([TEN, LONG], keep(1, "shell", "sql"), script)
    assert ruling.winner == 1
    assert {audit.outcome for audit in ruling.audits[1:]} == {"no answer"}


async def test_audits_over_the_budget_leave_the_verdict() -> None:
    script = Script({}, [chooses(LONG.text)] * 2)
    script.tokens = 480
    ruling = await rule([TEN, LONG], [], script, Budget(1000, 60))
    assert ruling.winner == 1
    assert ruling.audits[-1].outcome == "over budget"


async def test_a_second_round_over_the_budget_leaves_the_first_verdict() -> None:
    check = says('{"analysis": "It repeats itself.", "biased": "Yes"}')
    script = Script({}, [*[chooses(LONG.text)] * 2, check])
    script.tokens = 300
    ruling = await rule([TEN, LONG], [], script, Budget(1200, 60))
    assert (ruling.winner, ruling.over_budget) == (1, False)


async def test_only_contenders_are_shown() -> None:
    slate = Slate.shuffled("q", [TEN, TEA, SQL], 5)
    script = Script({}, [chooses(TEN.text)] * 2)
    await arbitrate(slate, (0, 2), [], judge=script, budget=Budget(9_000, 60))
    assert all(TEA.text not in prompt.messages[-1][1] for prompt in script.judged)


def test_the_reverse_order_keeps_each_drafts_letter() -> None:
    shown = case([TEN, TEA, SQL])
    turned = shown.reversed()
    assert turned.contenders == shown.contenders[::-1]
    assert [turned.letter(i) for i in range(3)] == [shown.letter(i) for i in range(3)]
    assert replace(turned, contenders=shown.contenders) == shown
