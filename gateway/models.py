"""The names a request may put into ``model``, and what each one forces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adapters.mix import BASE, Mix
from kiki.errors import UnknownModelError
from kiki.names import near
from routing.domains import DomainTable

AUTO, BASE_MODEL = "micro-kiki", "base"
META, NICHE = "kiki-meta-", "kiki-niche-"

Kind = Literal["auto", "base", "adapter", "intent"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a model name means. ``adapter_missing`` is the domain whose adapter isn't loaded."""

    id: str
    kind: Kind
    mix: Mix | None = None
    intent: frozenset[str] | None = None
    adapter_missing: str | None = None


class Models:
    """``micro-kiki``, ``base`` and the loaded adapters, with the aliases of the 35 domains.

    ``kiki-meta-INTENT`` is the pipeline limited to the intent's domains; ``kiki-niche-DOMAIN`` and
    the bare domain name are that domain's adapter, or the base where none is loaded.
    """

    def __init__(self, table: DomainTable, loaded: Iterable[str]) -> None:
        self._table = table
        self.load(loaded)

    def load(self, adapters: Iterable[str]) -> None:
        """These are the adapters from now on."""
        self._loaded = tuple(adapters)
        self._aliases = self._all_aliases()

    @property
    def listed(self) -> tuple[ServedModel, ...]:
        """What ``GET /v1/models`` shows: auto, base, one an adapter."""
        names = (AUTO, BASE_MODEL, *self._loaded)
        return tuple(self._aliases[name] for name in names)

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(self._aliases)

    def resolve(self, name: str) -> ServedModel:
        """Raises UnknownModelError, which lists the near names."""
        try:
            return self._aliases[name]
        except KeyError:
            raise UnknownModelError(
                f"No model {name!r}.{near(name, self._aliases)}",
                param="model",
                fix="GET /v1/models lists what is served.",
            ) from None

    def label(self, name: str) -> str:
        """The name as a metric's label: what is unknown is one, so that labels stay few."""
        return name if name in self._aliases else "unknown"

    def _all_aliases(self) -> dict[str, ServedModel]:
        models = {
            AUTO: ServedModel(AUTO, "auto"),
            BASE_MODEL: ServedModel(BASE_MODEL, "base", BASE),
        }
        for intent in self._table.intents:
            outputs = self._table.intent_outputs(intent)
            models[META + intent] = ServedModel(META + intent, "intent", intent=outputs)
        for name in self._loaded:
            models[name] = ServedModel(name, "adapter", Mix.single(name))
        for domain in self._table.domains:
            for alias in (domain.name, NICHE + domain.name):
                models.setdefault(alias, self._domain(alias, domain.name, domain.adapters))
        return models

    def _domain(self, alias: str, domain: str, adapters: tuple[str, ...]) -> ServedModel:
        for name in adapters:
            if name in self._loaded:
                return ServedModel(alias, "adapter", Mix.single(name))
        return ServedModel(alias, "adapter", BASE, adapter_missing=domain)
