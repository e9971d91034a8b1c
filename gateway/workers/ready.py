"""What ``kiki serve`` says once it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.services import Services


@dataclass(frozen=True, slots=True)
class Ready:
    """What is served; plain values, since a worker sends them to its parent."""

    model: str
    engine: str
    adapters: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, services: Services) -> Ready:
        what = services.engine.capabilities
        refused = tuple((one.name, one.reason) for one in services.adapter_set.refused)
        return cls(what.model, what.name, services.engine.adapters, refused)
