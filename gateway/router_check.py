"""What mirrors the domain table outside the router's own room: recipes, adapters, model names."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.catalog import SHIPPED, Catalog
from adapters.policy import SHIPPED_POLICY, Policy
from adapters.recipes import RECIPES
from adapters.recipes import validate as validate_recipes
from gateway.models import AUTO, BASE_MODEL, META, NICHE, Models
from kiki.errors import KikiError
from routing.domains import DomainTable
from routing.validation import Finding


def mirrors(table: DomainTable) -> list[Finding]:
    """Everything outside `routing/` that doesn't agree with the table."""
    return [*_recipes(table), *_adapters(table), *_names(table)]


def _recipes(table: DomainTable) -> Iterator[Finding]:
    families = {domain.name: domain.family for domain in table.domains}
    _, findings = validate_recipes(RECIPES, families)
    for found in findings:
        where = f"{found.path} {found.key}".rstrip()
        yield Finding("wrong", f"recipe-{found.rule}", where, found.message, found.fix)


def _adapters(table: DomainTable) -> Iterator[Finding]:
    """An adapter is trained for the domain of its name, so each one named must be a domain's."""
    domains = {domain.name for domain in table.domains}
    for domain in table.domains:
        for name in domain.adapters:
            if name not in domains:
                message = f"domain {domain.name!r} has the adapter {name!r}, which no recipe makes."
                yield Finding("wrong", "adapter", "routing/domains.toml", message, "Correct it.")
    used = {name for domain in table.domains for name in domain.adapters}
    try:
        shipped = {adapter.name for adapter in Catalog(SHIPPED).scan().adapters}
        measured = {row.adapter for row in Policy.load(SHIPPED_POLICY).rows}
    except KikiError as error:
        yield Finding("wrong", "adapter", "adapters/", error.message, error.fix or "")
        return
    for what, names in (("shipped", shipped), ("measured in the policy", measured)):
        for name in sorted(names - used):
            message = f"the adapter {name!r} is {what}, and no domain uses it."
            yield Finding("wrong", "adapter", "routing/domains.toml", message, "Add it to one.")


def _names(table: DomainTable) -> Iterator[Finding]:
    """The names that a request may give: none may mean two things, and each must resolve."""
    models = Models(table, ())
    for domain in table.domains:
        if domain.name in (AUTO, BASE_MODEL) or domain.name.startswith((META, NICHE)):
            message = f"the domain {domain.name!r} has the name of another model."
            yield Finding("wrong", "alias", "routing/domains.toml", message, "Rename it.")
        for alias in (domain.name, NICHE + domain.name):
            if models.resolve(alias).kind != "adapter":
                message = f"the model {alias!r} isn't the adapter of {domain.name!r}."
                yield Finding("wrong", "alias", "gateway/models.py", message, "Correct it.")
    for intent in table.intents:
        if models.resolve(META + intent).intent != table.intent_outputs(intent):
            message = f"the model {META + intent!r} isn't limited to the intent's domains."
            yield Finding("wrong", "alias", "gateway/models.py", message, "Correct it.")
