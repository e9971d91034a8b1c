"""Chooses among a panel's drafts: agreement, votes, a judge, dissent. It is given its callables."""

from negotiator.ballot import Vote
from negotiator.candidate import Candidate, merge
from negotiator.negotiate import Panel, negotiate
from negotiator.prompt import Generate, Prompt, Reply
from negotiator.verdict import Verdict

__all__ = [
    "Candidate",
    "Generate",
    "Panel",
    "Prompt",
    "Reply",
    "Verdict",
    "Vote",
    "merge",
    "negotiate",
]
