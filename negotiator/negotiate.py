"""From a panel's drafts to one answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kiki.errors import KikiError
from negotiator.agreement import Embed, agreement
from negotiator.ballot import Slate, Vote, ballot_prompt, read_ballot
from negotiator.camp import decide, leader
from negotiator.candidate import Candidate, merge
from negotiator.judge import arbitrate, cost
from negotiator.prompt import Generate

log = logging.getLogger("kiki.negotiator")

How = Literal[
    "only one", "identical", "agreement", "consensus", "attending", "arbitration", "budget"
]

AGREED = 0.92
"""Drafts at least this much in agreement are not voted on. Calibrated with all-mpnet-base-v2 on
pairs of drafts that agree and that contradict each other: no contradiction reaches it, and about
a third of the paraphrases do."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer that goes out, who wrote it, and how it was chosen.

    ``agreement`` is that of the two drafts that agree least; ``tokens`` were spent on votes and
    judgement, not on the drafts.
    """

    text: str
    authors: tuple[str, ...]
    how: How
    votes: tuple[Vote, ...] = ()
    agreement: float = 1.0
    tokens: int = 0
    note: str = ""


async def negotiate(
    question: str,
    candidates: Sequence[Candidate],
    *,
    generate: Generate,
    embed: Embed,
    judge: Generate | None = None,
    token_budget: int,
    time_budget: float = 60.0,
    seed: int,
) -> Verdict:
    """Chooses one of the drafts by CAMP (arXiv 2604.00085).

    ``candidates`` come strongest adapter first: the first one's author is the attending, whose
    draft is sent whenever the panel or its judge fails. Each author votes, on its own adapter;
    ``judge`` is the base model where it isn't given. ``time_budget`` is in seconds. Never raises
    for an engine's failure.
    """
    if not candidates:
        raise ValueError("negotiate() needs at least one candidate.")
    merged = merge(candidates)
    attending = merged[0]
    if len(merged) == 1:
        how: How = "only one" if len(candidates) == 1 else "identical"
        return Verdict(attending.text, attending.authors, how)
    agreed = await agreement([candidate.text for candidate in merged], embed)
    if agreed >= AGREED:
        return Verdict(attending.text, attending.authors, "agreement", agreement=agreed)
    panel = _Panel(Slate.shuffled(question, merged, seed), agreed, token_budget)
    try:
        async with asyncio.timeout(time_budget):
            await panel.vote(generate)
            return await panel.settle(judge or generate)
    except TimeoutError:
        return panel.verdict("attending", 0, f"no decision within {time_budget:g} s")
    except KikiError as error:
        log.warning("The negotiation failed: %s", error)
        return panel.verdict("attending", 0, error.message)


class _Panel:
    """One negotiation: what was voted and spent so far."""

    def __init__(self, slate: Slate, agreed: float, token_budget: int) -> None:
        self._slate = slate
        self._agreed = agreed
        self._left = token_budget
        self._tokens = 0
        self._votes: tuple[Vote, ...] = ()

    async def vote(self, generate: Generate) -> None:
        """One call a specialist, all in one batch; no votes where they are over the budget."""
        authors = dict.fromkeys(
            author for candidate in self._slate.candidates for author in candidate.authors
        )
        prompts = [ballot_prompt(self._slate, author) for author in authors]
        if sum(map(cost, prompts)) > self._left:
            return
        replies = await generate(prompts)
        self._spend(sum(reply.tokens for reply in replies))
        self._votes = tuple(
            vote
            for author, reply in zip(authors, replies, strict=True)
            for vote in read_ballot(self._slate, author, reply.text)
        )

    async def settle(self, judge: Generate) -> Verdict:
        """The decision of the votes, or of the judge where they are divided."""
        if not self._votes:
            return self.best("the votes are over the token budget")
        decision = decide(self._votes, len(self._slate.candidates))
        if decision.path != "arbitration":
            return self.verdict(decision.path, decision.winner)
        ruling = await arbitrate(
            self._slate, decision.contenders, self._votes, judge=judge, token_budget=self._left
        )
        self._spend(ruling.tokens)
        if ruling.over_budget:
            return self.best(ruling.note)
        if ruling.winner is None:
            return self.verdict("attending", 0, ruling.note)
        return self.verdict("arbitration", ruling.winner, ruling.note)

    def best(self, note: str) -> Verdict:
        """The best so far, when the budget is spent."""
        return self.verdict("budget", leader(self._votes, len(self._slate.candidates)), note)

    def verdict(self, how: How, winner: int, note: str = "") -> Verdict:
        candidate = self._slate.candidates[winner]
        return Verdict(
            text=candidate.text,
            authors=candidate.authors,
            how=how,
            votes=self._votes,
            agreement=self._agreed,
            tokens=self._tokens,
            note=note,
        )

    def _spend(self, tokens: int) -> None:
        self._tokens += tokens
        self._left -= tokens
