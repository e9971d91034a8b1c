"""From a panel's drafts to one answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kiki.budget import Budget
from kiki.errors import KikiError
from negotiator.agreement import AGREED, Embed, agreement
from negotiator.arbitration import Ruling, arbitrate
from negotiator.ballot import Slate, Vote, ballot_prompt, read_ballot
from negotiator.camp import decide, leader
from negotiator.candidate import Candidate, merge
from negotiator.catfish import UNSURE, Dissent, Gate, dissent, gate
from negotiator.prompt import Generate, cost
from negotiator.verdict import How, JudgeUsed, Verdict

log = logging.getLogger("kiki.negotiator")

DEEP_UNDER = 0.5
"""Agreement under which the deep judge decides, where there is one."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Who takes part. ``generate`` runs the specialists and the dissent on their adapters.

    ``judge`` is the base model where it isn't given, ``deep_judge`` the judge. ``deep`` asks for
    the deep judge whatever the agreement. ``unsure`` is the confidence under which Catfish fires;
    0 leaves only cheap agreement, and ``catfish`` False nothing.
    """

    generate: Generate
    embed: Embed
    judge: Generate | None = None
    deep_judge: Generate | None = None
    deep: bool = False
    catfish: bool = True
    unsure: float = UNSURE


async def negotiate(
    question: str, candidates: Sequence[Candidate], panel: Panel, *, budget: Budget, seed: int
) -> Verdict:
    """Chooses one of the drafts by CAMP (arXiv 2604.00085), or Catfish's own.

    ``candidates`` come strongest adapter first: the first one's author is the attending, whose
    draft is sent whenever the panel or its judge fails. Each author votes, on its own adapter.
    At the budget the best so far is sent. Never raises for an engine's failure.
    """
    if not candidates:
        raise ValueError("negotiate() needs at least one candidate.")
    merged = merge(candidates)
    if len(candidates) == 1:
        return Verdict(merged, 0, "only one")
    budget.begin()
    talk = _Talk(question, merged, panel, budget, seed)
    try:
        async with asyncio.timeout(budget.seconds_left):
            await talk.settle()
            await talk.challenge()
    except TimeoutError:
        budget.exhausted = "time"
        talk.stop(f"no decision within {budget.seconds:g} s")
    except KikiError as error:
        log.warning("The negotiation failed: %s", error)
        talk.fail(error.message)
    return talk.verdict


class _Talk:
    """One negotiation. ``verdict`` is the best so far."""

    def __init__(
        self,
        question: str,
        candidates: tuple[Candidate, ...],
        panel: Panel,
        budget: Budget,
        seed: int,
    ) -> None:
        self._slate = Slate.shuffled(question, candidates, seed)
        self._panel = panel
        self._budget = budget
        self._seed = seed
        self._before = budget.spent
        self._settled = False
        self._verdict = Verdict(candidates, 0, "attending")

    @property
    def verdict(self) -> Verdict:
        return replace(self._verdict, tokens=self._budget.spent - self._before)

    async def settle(self) -> None:
        """Agreement, votes, or the judge."""
        candidates = self._slate.candidates
        if len(candidates) == 1:
            return self._settle(how="identical")
        agreed = await agreement([candidate.text for candidate in candidates], self._panel.embed)
        self._verdict = replace(self._verdict, agreement=agreed)
        if agreed >= AGREED:
            return self._settle(how="agreement")
        votes = await self._vote()
        if not votes:
            return self._settle(how="budget", note="the votes are over the token budget")
        self._verdict = replace(self._verdict, votes=votes)
        decision = decide(votes, len(candidates))
        if decision.path != "arbitration":
            return self._settle(how=decision.path, winner=decision.winner)
        ruling = await self._arbitrate(self._slate, decision.contenders, votes)
        if ruling.over_budget:
            return self._settle(how="budget", winner=self._leader, note=ruling.note)
        if ruling.winner is None:
            return self._settle(how="attending", note=ruling.note)
        return self._settle(how="arbitration", winner=ruling.winner, note=ruling.note)

    async def challenge(self) -> None:
        """Catfish: where the gate fires, another draft is judged beside the winner."""
        if not self._panel.catfish or self._verdict.how == "budget":
            return
        found = self._gate()
        self._verdict = replace(self._verdict, gate=found)
        if not found.fired:
            return
        winner = self._verdict.winner
        arguments = [v.argument for v in self._verdict.votes if v.candidate == winner]
        spoken = [argument for argument in arguments if argument]
        said = await dissent(
            self._slate.question,
            self._slate.candidates[winner],
            spoken,
            found.strength,
            generate=self._panel.generate,
            budget=self._budget,
        )
        if said is None:
            over = self._budget.exhausted is not None
            self._verdict = replace(self._verdict, dissent="over budget" if over else "no answer")
            return
        self._verdict = replace(self._verdict, critique=said.critique)
        await self._weigh(said)

    async def _weigh(self, said: Dissent) -> None:
        """The dissent's draft and the winner before the judge, the critique as an argument."""
        winner = self._verdict.winner
        texts = [self._slate.candidates[winner].text, said.candidate.text]
        if await agreement(texts, self._panel.embed) >= AGREED:
            self._verdict = replace(self._verdict, dissent="same answer")
            return
        candidates = (*self._slate.candidates, said.candidate)
        place = len(candidates) - 1
        slate = Slate.shuffled(self._slate.question, candidates, self._seed)
        critique = Vote(said.candidate.authors[0], winner, "REFUSE", said.critique)
        self._verdict = replace(self._verdict, candidates=candidates)
        ruling = await self._arbitrate(slate, (winner, place), (*self._verdict.votes, critique))
        if ruling.over_budget:
            self._verdict = replace(self._verdict, dissent="over budget")
        elif ruling.winner == place:
            self._verdict = replace(
                self._verdict, winner=place, how="dissent", dissent="overruled", note=ruling.note
            )
        else:
            self._verdict = replace(self._verdict, dissent="kept")

    def stop(self, note: str) -> None:
        """The time is over: what was settled stands, else the draft with the most votes."""
        if self._settled:
            self._verdict = replace(self._verdict, dissent="over budget", note=note)
        else:
            self._verdict = replace(self._verdict, how="budget", winner=self._leader, note=note)

    def fail(self, note: str) -> None:
        """An engine failed: what was settled stands, else the attending's draft."""
        self._verdict = replace(self._verdict, note=note)
        if self._settled:
            self._verdict = replace(self._verdict, dissent="no answer")

    async def _vote(self) -> tuple[Vote, ...]:
        """One call a specialist, all in one batch; no votes where they are over the budget."""
        authors = dict.fromkeys(
            author for candidate in self._slate.candidates for author in candidate.authors
        )
        prompts = [ballot_prompt(self._slate, author) for author in authors]
        if not self._budget.allows(sum(map(cost, prompts))):
            return ()
        replies = await self._panel.generate(prompts)
        self._budget.spend(sum(reply.tokens for reply in replies))
        return tuple(
            vote
            for author, reply in zip(authors, replies, strict=True)
            for vote in read_ballot(self._slate, author, reply.text)
        )

    async def _arbitrate(
        self, slate: Slate, contenders: Sequence[int], votes: Sequence[Vote]
    ) -> Ruling:
        panel = self._panel
        used: JudgeUsed = "judge"
        judge = panel.judge or panel.generate
        if panel.deep_judge and (panel.deep or self._verdict.agreement < DEEP_UNDER):
            used, judge = "deep judge", panel.deep_judge
        self._verdict = replace(self._verdict, judge=used)
        ruling = await arbitrate(slate, contenders, votes, judge=judge, budget=self._budget)
        audits = (*self._verdict.audits, *ruling.audits)
        self._verdict = replace(self._verdict, audits=audits)
        return ruling

    def _gate(self) -> Gate:
        verdict = self._verdict
        votes = [vote for vote in verdict.votes if vote.candidate == verdict.winner]
        return gate(
            self._slate.candidates[verdict.winner],
            verdict.winner,
            votes,
            verdict.agreement,
            at_once=all(vote.choice == "KEEP" for vote in votes),
            unsure=self._panel.unsure,
        )

    @property
    def _leader(self) -> int:
        return leader(self._verdict.votes, len(self._slate.candidates))

    def _settle(self, how: How, winner: int = 0, note: str = "") -> None:
        self._verdict = replace(self._verdict, how=how, winner=winner, note=note)
        self._settled = True
