"""The recorded panels, the gate on them, and its calibration."""

from __future__ import annotations

import pytest

from kiki.budget import Budget
from negotiator import Panel, negotiate
from negotiator.calibration import LEAST_RATE, MOST_RATE, Judged, calibrate, rate
from negotiator.candidate import merge
from negotiator.panel_cases import Replay, read_panels, read_prompts
from routing.embedder import Embedder

CASES = read_panels()


def test_every_prompt_has_a_panel_whose_votes_are_on_its_drafts() -> None:
    assert [case.prompt for case in CASES] == list(read_prompts())
    for case in CASES:
        drafts = len(merge(case.drafts))
        assert {vote.candidate for vote in case.votes} == set(range(drafts))
        assert {vote.specialist for vote in case.votes} == set(case.prompt.adapters)


async def test_on_recorded_panels_the_gate_is_not_inert(embedder: Embedder) -> None:
    fired = []
    for case in CASES[::2]:  # half of them, for time
        panel = Panel(Replay(case), embedder.embed)
        budget = Budget(1_000_000, 60)
        verdict = await negotiate(
            case.prompt.question, case.drafts, panel, budget=budget, seed=case.seed
        )
        assert verdict.gate is not None
        fired.append(verdict.gate.fired)
    assert LEAST_RATE <= sum(fired) / len(fired) <= MOST_RATE


def test_a_threshold_is_found_where_doubt_tells_wrong_from_right() -> None:
    panels = [Judged(place / 20, False, right=place >= 8) for place in range(20)]
    found = calibrate(panels)
    assert 0.35 < found.threshold <= 0.4
    assert found.rate == rate(panels, found.threshold) == 0.4
    assert found.gain > 0.8


def test_a_threshold_that_makes_the_gate_inert_is_not_taken() -> None:
    panels = [Judged(place / 20, False, right=place != 0) for place in range(20)]
    assert LEAST_RATE <= calibrate(panels).rate <= MOST_RATE


def test_panels_that_were_all_right_give_no_threshold() -> None:
    with pytest.raises(ValueError, match="some of them wrong"):
        calibrate([Judged(0.5, False, True)] * 20)
