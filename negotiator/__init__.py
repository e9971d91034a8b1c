"""Chooses among a panel's drafts: agreement, votes, a judge. It is given its callables."""

from negotiator.ballot import Vote
from negotiator.candidate import Candidate, merge
from negotiator.negotiate import Verdict, negotiate
from negotiator.prompt import Generate, Prompt, Reply

__all__ = ["Candidate", "Generate", "Prompt", "Reply", "Verdict", "Vote", "merge", "negotiate"]
