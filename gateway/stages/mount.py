"""Stage 2: the plan, and the adapter mix that is active for this request alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from adapters.engines.base import Engine
from adapters.policy import BaseOnly
from antibias.detector import screen_prompt
from gateway import plan
from gateway.second_look import SecondLookPolicy
from gateway.turn import Mount, Turn
from kiki.errors import UnknownAdapterError
from kiki.names import near
from routing.domains import DomainTable


class MountStage:
    """Chooses; the engine applies the mix row by row, so nothing is reloaded or shared."""

    name = "mount"

    def __init__(
        self,
        engine: Engine,
        table: DomainTable,
        base_only: Mapping[str, BaseOnly],
        policy: SecondLookPolicy,
    ) -> None:
        self._engine = engine
        self._table = table
        self._base_only = base_only
        self._policy = policy

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        options = turn.ask.options
        loaded = frozenset(self._engine.adapters)
        for name in options.adapters.names if options.adapters else ():
            if name not in loaded:
                raise UnknownAdapterError(
                    f"No adapter {name!r} is loaded.{near(name, loaded)}",
                    param=f"kiki.adapters.{name}",
                    fix=f"Loaded: {', '.join(sorted(loaded)) or 'none'}.",
                )
        chosen = plan.choose(options, turn.route, loaded, self._table, self._base_only)
        if turn.ask.verbatim and chosen.plan == "panel":
            reason = f"{chosen.reason}; blended, since no panel may rewrite the answer"
            chosen = replace(chosen, plan="blend", reason=reason)
        mount = self._fitted(chosen)
        turn.mount = mount
        turn.look = self._policy.decide(options, turn.route)
        turn.held = mount.plan == "panel" or (
            turn.look.antibias and screen_prompt(turn.ask.question, turn.vector)
        )
        decision |= {
            "plan": mount.plan,
            "adapters": dict(mount.mix.weights),
            "reason": mount.reason,
            "base_only": list(mount.base_only),
            "left_out": list(mount.left_out),
            "held_back": turn.held,
        }

    def _fitted(self, mount: Mount) -> Mount:
        """Where the engine can't hold the whole mix, its strongest adapters that it can."""
        if mount.plan == "panel":  # its candidates run with one adapter each
            return mount
        fitting = self._engine.fitting(mount.mix)
        if fitting == mount.mix:
            return mount
        left_out = tuple(name for name in mount.mix.names if name not in fitting.names)
        reason = f"{mount.reason}; without {', '.join(left_out)}, which don't fit the engine too"
        return replace(mount, mix=fitting, reason=reason, left_out=left_out)
