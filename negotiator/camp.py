"""CAMP's decision: consensus, the attending's draft, or arbitration (arXiv 2604.00085).

The paper's thresholds are not public. Here a candidate is accepted or rejected when everyone who
isn't NEUTRAL on it says the same; whatever is contested goes to arbitration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from negotiator.ballot import Vote

Path = Literal["consensus", "attending", "arbitration"]
Standing = Literal["accepted", "rejected", "contested", "unvoted"]

VOICES = 2
"""How many specialists it takes to overrule the attending without a judge: one is no consensus."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the votes lead: a winner, or the candidates that the judge chooses from."""

    path: Path
    winner: int
    contenders: tuple[int, ...] = ()


def standing(votes: Sequence[Vote], candidate: int) -> Standing:
    """Where a candidate stands by the votes that aren't NEUTRAL."""
    choices = {vote.choice for vote in votes if vote.candidate == candidate} - {"NEUTRAL"}
    if not choices:
        return "unvoted"
    if len(choices) == 2:
        return "contested"
    return "accepted" if choices == {"KEEP"} else "rejected"


def decide(votes: Sequence[Vote], candidates: int, *, attending: int = 0) -> Decision:
    """Decides among ``candidates`` drafts; ``attending`` is the strongest adapter's.

    Consensus: every other draft was refused by all who judged it, or nobody is at odds over a
    draft and the attending's, or one alone, was kept. Attending: nobody has an opinion, or every
    draft is refused. Else the judge chooses among the drafts that are not refused outright; and
    where a single voice, or a draft that is contested itself, would overrule the attending,
    between both.
    """
    decision = _by_standing(votes, candidates, attending)
    winner = decision.winner
    overruled = decision.path == "consensus" and winner != attending
    if overruled and (
        standing(votes, winner) == "contested" or len(_against(votes, winner, attending)) < VOICES
    ):
        return Decision("arbitration", attending, (attending, winner))
    return decision


def _against(votes: Sequence[Vote], winner: int, attending: int) -> frozenset[str]:
    """Who keeps the winner, or refuses the attending's draft."""
    return frozenset(
        vote.specialist
        for vote in votes
        if (vote.candidate, vote.choice) in ((winner, "KEEP"), (attending, "REFUSE"))
    )


def _by_standing(votes: Sequence[Vote], candidates: int, attending: int) -> Decision:
    standings = [standing(votes, index) for index in range(candidates)]
    left = tuple(index for index, found in enumerate(standings) if found != "rejected")
    if not left or set(standings) == {"unvoted"}:
        return Decision("attending", attending)
    if len(left) == 1:
        return Decision("consensus", left[0])
    accepted = [index for index in left if standings[index] == "accepted"]
    if "contested" not in standings:
        if attending in accepted:
            return Decision("consensus", attending)
        if len(accepted) == 1:
            return Decision("consensus", accepted[0])
    return Decision("arbitration", attending, left)


def leader(votes: Sequence[Vote], candidates: int, *, attending: int = 0) -> int:
    """The draft with the most KEEP less REFUSE; the attending's where it is level with the best."""
    worth = {"KEEP": 1, "REFUSE": -1, "NEUTRAL": 0}
    scores = [0] * candidates
    for vote in votes:
        scores[vote.candidate] += worth[vote.choice]
    best = max(scores)
    return attending if scores[attending] == best else scores.index(best)
