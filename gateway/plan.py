"""Which plan a turn takes, and with which adapters."""

from __future__ import annotations

from adapters.mix import BASE, Mix
from gateway.turn import Mount, Options, Plan
from routing.domains import DomainTable
from routing.router import ActiveDomain, RouteDecision


def choose(
    options: Options,
    route: RouteDecision | None,
    loaded: frozenset[str],
    table: DomainTable,
) -> Mount:
    """Decide plan and mix: the caller's word first, else the router's confidence.

    A domain without a loaded adapter keeps its share of the weight, which then is the base's.
    """
    if options.adapter_missing:
        name = options.adapter_missing
        return Mount("single", BASE, f"no adapter is loaded for {name}: the base answers", (name,))
    if options.adapters is not None:
        return _named(options.adapters, options.plan)
    if route is None or route.fallback:
        return Mount("single", BASE, "no domain is active: the base answers")
    served = [(domain, adapter_of(domain, loaded, table)) for domain in route.active]
    base_only = tuple(domain.name for domain, adapter in served if adapter is None)
    ranked = [(adapter, domain.weight) for domain, adapter in served if adapter is not None]
    if not ranked:
        reason = f"no adapter is loaded for {', '.join(base_only)}: the base answers"
        return Mount("single", BASE, reason, base_only)
    plan, reason = _plan(options.plan, route, len(ranked), table)
    if plan == "single" and served[0][1] is None:
        reason = f"{route.active[0].name} leads and has no adapter: the base answers"
        return Mount("single", BASE, reason, base_only)
    return Mount(plan, _mix(plan, ranked), reason, base_only)


def adapter_of(domain: ActiveDomain, loaded: frozenset[str], table: DomainTable) -> str | None:
    """The loaded adapter that serves a domain: the member's own, else another member's."""
    members = (domain.member, *table.members(domain.name))
    names = (name for member in members for name in table.domain(member).adapters)
    return next((name for name in names if name in loaded), None)


def _named(mix: Mix, plan: Plan | None) -> Mount:
    if len(mix.weights) < 2:
        return Mount("single", mix, "named by the caller" if mix else "the base, as asked")
    if plan == "single":
        ranked = sorted(mix.weights, key=lambda pair: -abs(pair[1]))
        return Mount("single", Mix.of(ranked[:1]), "named by the caller: the strongest one")
    return Mount(plan or "blend", mix, "named by the caller")


def _plan(
    forced: Plan | None, route: RouteDecision, adapters: int, table: DomainTable
) -> tuple[Plan, str]:
    if forced == "panel" and adapters < 2:
        return "blend", "a panel needs two adapters"
    if forced:
        return forced, "plan named by the caller"
    first = route.active[0]
    if len(route.active) == 1:
        return "single", f"{first.name} alone is active"
    if route.clear:
        return "single", f"{first.name} is well ahead"
    if adapters > 1 and all(table.helps_panel(domain.name) for domain in route.active):
        return "panel", "close scores, and a panel measured better here"
    return "blend", f"{len(route.active)} domains are active"


def _mix(plan: Plan, ranked: list[tuple[str, float]]) -> Mix:
    if plan == "single":
        return Mix.single(ranked[0][0])
    weights: dict[str, float] = {}
    for adapter, weight in ranked:
        weights[adapter] = weights.get(adapter, 0.0) + weight
    return Mix.of(weights)
