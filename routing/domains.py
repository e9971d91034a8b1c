"""The table of domains: names, merges, intents and what serves each, read from `domains.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kiki.errors import RoutingError
from kiki.names import near

PACKAGED = Path(__file__).with_name("domains.toml")

FAMILIES = ("foundations", "coding", "niches")
INTENTS = 7
"""How many meta-intents there are: each one is a model alias that users type."""


@dataclass(frozen=True, slots=True)
class Cognitive:
    """Which layers help a domain: recalled memory, negotiation, the anti-bias audit."""

    memory: bool
    negotiation: bool
    antibias: bool


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain. `output` is its name among the router's outputs, `adapters` the best first.

    `words` are what people call it: training adds them to prompts that don't name it.
    """

    name: str
    description: str
    words: tuple[str, ...]
    family: str
    output: str
    intents: tuple[str, ...]
    adapters: tuple[str, ...]
    cognitive: Cognitive
    panel: bool


@dataclass(frozen=True)
class DomainTable:
    """All domains and the meta-intents, checked by `load_domains`.

    `deep_judge` are the domains whose panels the deep judge decides, where there is one.
    """

    domains: tuple[Domain, ...]
    intents: tuple[str, ...]
    deep_judge: frozenset[str] = frozenset()

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The router's outputs, in the order of the weights."""
        return tuple(dict.fromkeys(domain.output for domain in self.domains))

    @cached_property
    def merged(self) -> tuple[str, ...]:
        """The domains that share their output with others."""
        return tuple(one.name for one in self.domains if len(self.members(one.output)) > 1)

    @cached_property
    def _by_name(self) -> dict[str, Domain]:
        return {domain.name: domain for domain in self.domains}

    def domain(self, name: str) -> Domain:
        """Raises `RoutingError` where the table has no such domain."""
        try:
            return self._by_name[name]
        except KeyError:
            raise RoutingError(
                f"No domain {name!r}.{near(name, self._by_name)}",
                fix="routing/domains.toml lists the domains.",
            ) from None

    def members(self, output: str) -> tuple[str, ...]:
        """The domains that an output stands for; raises `RoutingError` for no output."""
        members = tuple(domain.name for domain in self.domains if domain.output == output)
        if not members:
            raise RoutingError(
                f"No router output {output!r}.{near(output, self.outputs)}",
                fix="routing/domains.toml lists the outputs.",
            )
        return members

    def output_of(self, name: str) -> str:
        """The output of a domain or of an output's own name."""
        return name if name in self.outputs else self.domain(name).output

    def intent_outputs(self, intent: str) -> frozenset[str]:
        """The outputs that serve a meta-intent; raises `RoutingError` for an unknown one."""
        if intent not in self.intents:
            raise RoutingError(
                f"No intent {intent!r}.{near(intent, self.intents)}",
                fix=f"Intents: {', '.join(self.intents)}.",
            )
        return frozenset(domain.output for domain in self.domains if intent in domain.intents)

    def helps_panel(self, output: str) -> bool:
        """Whether a panel measured better than a blend for every member of the output."""
        return all(self.domain(name).panel for name in self.members(output))


def load_domains(path: Path = PACKAGED) -> DomainTable:
    """Reads and checks the table.

    Raises:
        RoutingError: the file is missing, isn't TOML, or an entry is wrong; names file, domain
            and fix.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RoutingError(
            f"{path} can't be read: {error}.", fix="Restore the file from the package."
        ) from error
    intents = _names(path, "the file", raw, "intents")
    entries = raw.get("domain")
    if not isinstance(entries, list) or not entries:
        raise RoutingError(f"{path} has no domains.", fix="Add [[domain]] entries.")
    domains = tuple(_domain(path, entry, intents) for entry in entries)
    deep = _names(path, "the file", raw, "deep_judge") if "deep_judge" in raw else ()
    table = DomainTable(domains, intents, frozenset(deep))
    _check(path, table)
    return table


def _domain(path: Path, entry: dict[str, Any], intents: tuple[str, ...]) -> Domain:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise RoutingError(f"{path}: a domain has no name.", fix='Give it name = "...".')
    where = f"domain {name!r}"
    known = set(Domain.__dataclass_fields__)
    for key in (*sorted(known - set(entry)), *sorted(set(entry) - known)):
        wrong = "lacks" if key in known else "has the unknown key"
        fix = f"Keys: {', '.join(sorted(known))}."
        raise RoutingError(f"{path}: {where} {wrong} {key!r}.", fix=fix)
    family = _text(path, where, entry, "family")
    if family not in FAMILIES:
        raise RoutingError(
            f"{path}: {where} has the unknown family {family!r}.",
            fix=f"Families: {', '.join(FAMILIES)}.",
        )
    own = _names(path, where, entry, "intents")
    for intent in own:
        if intent not in intents:
            raise RoutingError(
                f"{path}: {where} has the unknown intent {intent!r}.",
                fix=f"Intents: {', '.join(intents)}.",
            )
    return Domain(
        name=name,
        description=_text(path, where, entry, "description"),
        words=_names(path, where, entry, "words"),
        family=family,
        output=_text(path, where, entry, "output"),
        intents=own,
        adapters=_names(path, where, entry, "adapters"),
        cognitive=_cognitive(path, where, entry["cognitive"]),
        panel=_flag(path, where, entry, "panel"),
    )


def _cognitive(path: Path, where: str, raw: object) -> Cognitive:
    layers = tuple(Cognitive.__dataclass_fields__)
    if not isinstance(raw, dict) or set(raw) != set(layers):
        raise RoutingError(
            f"{path}: {where} has a wrong 'cognitive'.",
            fix=f"Set {', '.join(layers)} to true or false.",
        )
    return Cognitive(**{layer: _flag(path, where, raw, layer) for layer in layers})


def _text(path: Path, where: str, entry: dict[str, Any], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise RoutingError(f"{path}: {where} has an empty {key!r}.", fix="Write a text.")
    return value


def _flag(path: Path, where: str, entry: dict[str, Any], key: str) -> bool:
    value = entry[key]
    if not isinstance(value, bool):
        raise RoutingError(f"{path}: {where} has {key} = {value!r}.", fix="Write true or false.")
    return value


def _names(path: Path, where: str, entry: dict[str, Any], key: str) -> tuple[str, ...]:
    values = entry.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise RoutingError(f"{path}: {where} has no list of names {key!r}.", fix="Write one.")
    _refuse_repeats(path, f"{where}, {key}", values)
    return tuple(values)


def _check(path: Path, table: DomainTable) -> None:
    """What no single entry shows: repeats, intents that nobody serves, names that clash."""
    _refuse_repeats(path, "the file", [domain.name for domain in table.domains])
    if len(table.intents) != INTENTS:
        raise RoutingError(
            f"{path} has {len(table.intents)} intents.", fix=f"Exactly {INTENTS} are served."
        )
    for intent in table.intents:
        if not table.intent_outputs(intent):
            raise RoutingError(
                f"{path}: intent {intent!r} has no domain.", fix="Add it to a domain's intents."
            )
    names = [domain.name for domain in table.domains]
    for name in sorted(table.deep_judge.difference(names)):
        raise RoutingError(
            f"{path}: deep_judge has {name!r}, which is no domain.{near(name, names)}",
            fix="Name domains of this file.",
        )
    for domain in table.domains:
        if domain.panel and not domain.cognitive.negotiation:
            raise RoutingError(
                f"{path}: domain {domain.name!r} has a panel and no negotiation.",
                fix="Set cognitive.negotiation to true, or panel to false.",
            )
        namesake = next((other for other in table.domains if other.name == domain.output), None)
        if namesake is not None and namesake.output != domain.output:
            raise RoutingError(
                f"{path}: domain {domain.name!r} has the output {domain.output!r}, which is a "
                f"domain with another output, {namesake.output!r}.",
                fix="Give the output a name of its own.",
            )


def _refuse_repeats(path: Path, where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RoutingError(f"{path}: {where} has {name!r} twice.", fix="Remove one.")
        seen.add(name)
