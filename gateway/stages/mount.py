"""Stage 2: the plan, and the adapter mix that is active for this request alone."""

from __future__ import annotations

from adapters.engines.base import Engine
from antibias.screen import screen_prompt
from gateway import plan
from gateway.turn import Turn
from kiki.errors import UnknownAdapterError
from kiki.names import near
from routing.domains import DomainTable


class MountStage:
    """Chooses; the engine applies the mix row by row, so nothing is reloaded or shared."""

    name = "mount"

    def __init__(self, engine: Engine, table: DomainTable) -> None:
        self._engine = engine
        self._table = table

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
        mount = plan.choose(options, turn.route, loaded, self._table)
        turn.mount = mount
        turn.held = mount.plan == "panel" or (options.antibias and screen_prompt(turn.ask.question))
        decision |= {
            "plan": mount.plan,
            "adapters": dict(mount.mix.weights),
            "reason": mount.reason,
            "base_only": list(mount.base_only),
            "held_back": turn.held,
        }
