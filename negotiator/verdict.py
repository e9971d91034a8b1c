"""What a negotiation comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from negotiator.arbitration import Audit
from negotiator.ballot import Vote
from negotiator.candidate import Candidate
from negotiator.catfish import Gate
from negotiator.catfish import Outcome as DissentOutcome

How = Literal[
    "only one",
    "identical",
    "agreement",
    "consensus",
    "attending",
    "arbitration",
    "dissent",
    "budget",
]
JudgeUsed = Literal["judge", "deep judge"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer that goes out, who wrote it, and how it was chosen.

    ``winner`` is its place in ``candidates``, which are merged, the dissent's last. ``agreement``
    is that of the two drafts that agree least. ``tokens`` were spent on votes, judgement and
    dissent, not on the drafts. ``gate`` is None where dissent was not considered.
    """

    candidates: tuple[Candidate, ...]
    winner: int
    how: How
    votes: tuple[Vote, ...] = ()
    agreement: float = 1.0
    tokens: int = 0
    note: str = ""
    judge: JudgeUsed | None = None
    audits: tuple[Audit, ...] = ()
    gate: Gate | None = None
    critique: str = ""
    dissent: DissentOutcome = ""

    @property
    def text(self) -> str:
        return self.candidates[self.winner].text

    @property
    def authors(self) -> tuple[str, ...]:
        return self.candidates[self.winner].authors
