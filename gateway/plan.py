"""Which plan a turn takes, and with which adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from adapters.mix import BASE, Mix
from adapters.policy import BaseOnly
from gateway.turn import Mount, Options, Plan
from routing.domains import DomainTable
from routing.router import ActiveDomain, RouteDecision

WEIGHT_STEPS = 20

NOTHING_MEASURED: Mapping[str, BaseOnly] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Share:
    """An active domain's part of the answer: its adapter's, or the base's where that is None.

    ``lost`` says what was measured where an adapter is loaded and the base is better.
    """

    domain: ActiveDomain
    adapter: str | None
    lost: BaseOnly | None = None


def choose(
    options: Options,
    route: RouteDecision | None,
    loaded: frozenset[str],
    table: DomainTable,
    base_only: Mapping[str, BaseOnly] = NOTHING_MEASURED,
) -> Mount:
    """Decide plan and mix: the caller's word first, else the router's confidence.

    A domain without a loaded adapter keeps its share of the weight, which then is the base's; so
    does one whose adapter is in ``base_only``, having been measured worse than this base. A
    caller who names such an adapter gets it.
    """
    if options.adapter_missing:
        name = options.adapter_missing
        return Mount("single", BASE, f"no adapter is loaded for {name}: the base answers", (name,))
    if options.adapters is not None:
        return _named(options.adapters, options)
    if route is None or route.fallback:
        return Mount("single", BASE, "no domain is active: the base answers")
    shares = [_share(domain, loaded, table, base_only) for domain in route.active]
    ranked = [(s.adapter, s.domain.weight) for s in shares if s.adapter is not None]
    bases = [share for share in shares if share.adapter is None]
    names = tuple(share.domain.name for share in bases)
    lost = [f"{share.lost.adapter}: {share.lost}" for share in bases if share.lost]
    if not ranked:
        missing = ", ".join(share.domain.name for share in bases if not share.lost)
        why = [f"no adapter is loaded for {missing}"] * bool(missing) + lost
        return Mount("single", BASE, f"{'; '.join(why)}: the base answers", names)
    plan, reason = _plan(options, route, len(ranked), table)
    if plan == "single" and shares[0].adapter is None:
        first = shares[0]
        why_not = str(first.lost) if first.lost else "no adapter is loaded for it"
        reason = f"{first.domain.name} leads, {why_not}: the base answers"
        return Mount("single", BASE, reason, names)
    return Mount(plan, _mix(plan, ranked), "; ".join([reason, *lost]), names)


def _share(
    domain: ActiveDomain,
    loaded: frozenset[str],
    table: DomainTable,
    base_only: Mapping[str, BaseOnly],
) -> _Share:
    adapter = adapter_of(domain, loaded, table)
    lost = base_only.get(adapter) if adapter else None
    return _Share(domain, None if lost else adapter, lost)


def adapter_of(domain: ActiveDomain, loaded: frozenset[str], table: DomainTable) -> str | None:
    """The loaded adapter that serves a domain: the member's own, else another member's."""
    members = (domain.member, *table.members(domain.name))
    names = (name for member in members for name in table.domain(member).adapters)
    return next((name for name in names if name in loaded), None)


def _named(mix: Mix, options: Options) -> Mount:
    if len(mix.weights) < 2:
        return Mount("single", mix, "named by the caller" if mix else "the base, as asked")
    if options.plan == "single":
        ranked = sorted(mix.weights, key=lambda pair: -abs(pair[1]))
        return Mount("single", Mix.of(ranked[:1]), "named by the caller: the strongest one")
    plan: Plan = "panel" if options.negotiate else "blend"
    return Mount(options.plan or plan, mix, "named by the caller")


def _plan(
    options: Options, route: RouteDecision, adapters: int, table: DomainTable
) -> tuple[Plan, str]:
    forced = options.plan
    if forced == "panel" and adapters < 2:
        return "blend", "a panel needs two adapters"
    if forced:
        return forced, "plan named by the caller"
    if options.negotiate and adapters > 1:
        return "panel", "the caller asks for a negotiation"
    first = route.active[0]
    if len(route.active) == 1:
        return "single", f"{first.name} alone is active"
    if route.clear:
        return "single", f"{first.name} is well ahead"
    helps = all(table.helps_panel(domain.name) for domain in route.active)
    if adapters > 1 and helps and options.negotiate is None:
        return "panel", "close scores, and a panel measured better here"
    return "blend", f"{len(route.active)} domains are active"


def _mix(plan: Plan, ranked: list[tuple[str, float]]) -> Mix:
    if plan == "single":
        return Mix.single(ranked[0][0])
    weights: dict[str, float] = {}
    for adapter, weight in ranked:
        weights[adapter] = weights.get(adapter, 0.0) + weight
    return Mix.of({adapter: _in_steps(weight) for adapter, weight in weights.items()})


def _in_steps(weight: float) -> float:
    """To a twentieth: like questions then share a mix, its caches and its composed adapter."""
    return max(round(weight * WEIGHT_STEPS), 1) / WEIGHT_STEPS
