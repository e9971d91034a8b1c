"""Which of stages 5 and 6 look at a turn's answer, and what they may spend on it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.turn import Options, SecondLook
from kiki.budget import Budget
from routing.domains import DomainTable
from routing.router import RouteDecision


@dataclass(frozen=True, slots=True)
class SecondLookPolicy:
    """The caller's word first, then the domain table. ``plan.choose`` says when there is a panel.

    The anti-bias review costs nothing where it finds nothing, so one active domain that it helps
    is enough.
    """

    table: DomainTable
    tokens: int
    seconds: float

    def decide(self, options: Options, route: RouteDecision | None) -> SecondLook:
        active = route.active if route else ()
        members = [name for domain in active for name in self.table.members(domain.name)]
        reviews = not members or any(self.table.domain(n).cognitive.antibias for n in members)
        return SecondLook(
            negotiate=options.negotiate is not False,
            antibias=reviews if options.antibias is None else options.antibias,
            deep=any(name in self.table.deep_judge for name in members),
            budget=Budget(self.tokens, self.seconds),
        )
