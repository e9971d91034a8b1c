"""Where votes lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negotiator import Vote
from negotiator.ballot import CHOICES
from negotiator.camp import Decision, decide, leader

KEEP, REFUSE, NEUTRAL = "KEEP", "REFUSE", "NEUTRAL"


def votes(*rows: tuple[str, str]) -> list[Vote]:
    """A row a specialist: its choice on draft 0 and on draft 1."""
    return [
        Vote(str(name), place, choice, "")  # type: ignore[arg-type]
        for name, row in enumerate(rows)
        for place, choice in enumerate(row)
    ]


@pytest.mark.parametrize(
    ("rows", "path", "winner"),
    [
        ([(KEEP, NEUTRAL), (KEEP, REFUSE)], "consensus", 0),
        ([(KEEP, NEUTRAL), (NEUTRAL, NEUTRAL)], "consensus", 0),
        ([(REFUSE, KEEP), (REFUSE, KEEP)], "consensus", 1),
        ([(REFUSE, NEUTRAL), (NEUTRAL, KEEP)], "consensus", 1),
        ([(NEUTRAL, NEUTRAL), (NEUTRAL, NEUTRAL)], "attending", 0),
        ([(REFUSE, REFUSE), (REFUSE, REFUSE)], "attending", 0),
        ([(KEEP, REFUSE), (REFUSE, KEEP)], "arbitration", 0),
        ([(NEUTRAL, KEEP), (NEUTRAL, NEUTRAL)], "arbitration", 0),
        ([(REFUSE, NEUTRAL), (NEUTRAL, NEUTRAL)], "arbitration", 0),
        ([(REFUSE, REFUSE), (REFUSE, KEEP)], "arbitration", 0),
        ([(KEEP, REFUSE), (REFUSE, REFUSE)], "consensus", 0),
    ],
    ids=str,
)
def test_the_votes_decide_the_path(rows: list[tuple[str, str]], path: str, winner: int) -> None:
    decision = decide(votes(*rows), 2)
    assert (decision.path, decision.winner) == (path, winner)


def test_a_single_voice_against_the_attending_goes_to_the_judge_with_both() -> None:
    assert decide(votes((REFUSE, KEEP), (NEUTRAL, NEUTRAL)), 2) == Decision(
        "arbitration", 0, (0, 1)
    )


ROWS = st.lists(st.tuples(st.sampled_from(CHOICES), st.sampled_from(CHOICES)), min_size=1)


@given(ROWS)
def test_every_panel_comes_to_a_draft_that_there_is(rows: list[tuple[str, str]]) -> None:
    cast = votes(*rows)
    decision = decide(cast, 2)
    assert decision.winner in (0, 1)
    assert leader(cast, 2) in (0, 1)
    assert (decision.path == "arbitration") == (len(decision.contenders) == 2)
