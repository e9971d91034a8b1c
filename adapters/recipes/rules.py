"""The invariants that recipes keep, and every way in which they don't."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from adapters.health import LAYERS, MOE_KINDS, RANK
from adapters.recipes.loading import (
    RECIPES,
    REFUSED,
    Fault,
    origin,
    parse_recipe,
    recipe_files,
)
from adapters.recipes.recipe import FAMILIES, Recipe
from kiki.errors import AdapterError

BASE = "Qwen/Qwen3.6-35B-A3B"
LEARNING_RATE = 1e-5
ITERATIONS = {"foundations": (1000, 1000), "coding": (500, 500), "niches": (100, 200)}
"""Fewest and most iterations of a family."""
MEMORY_LIMIT_GB, CACHE_LIMIT_GB = 460, 32
# The project began on Qwen3.5-4B; a recipe that still names it would train for the wrong base.
_PRE_PIVOT = re.compile(r"qwen[-_ ]?3[._]5", re.IGNORECASE)


_Breach = tuple[str, str, str, str]
"""A broken rule of one recipe: rule, key, message, fix."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: which, in which file, at which key ("" for the whole file), and the fix."""

    rule: str
    path: Path
    key: str
    message: str
    fix: str

    def __str__(self) -> str:
        at = f" {self.key}:" if self.key else ""
        return f"{self.path}:{at} {self.message} {self.fix}"


def validate(
    path: Path = RECIPES, families: Mapping[str, str] | None = None
) -> tuple[tuple[Recipe, ...], tuple[Finding, ...]]:
    """The recipes that could be read from a folder (or one file), and what is wrong with them.

    ``families`` maps each domain of the routing table to its family; where it is given, table and
    recipes must agree. For a single file, the rules over all recipes are left out.
    """
    single = path.is_file()
    files = [path] if single else recipe_files(path)
    recipes, findings = [], list(_pre_pivot([path] if single else sorted(path.rglob("*.toml"))))
    for file in files:
        recipe = parse_recipe(file)
        if isinstance(recipe, tuple):
            findings += [_from_fault(fault) for fault in recipe]
        else:
            recipes.append(recipe)
            findings += _breaches(recipe)
    if not single:
        findings += _curriculum(recipes)
        if families is not None:
            findings += _table(path, files, families)
    return tuple(recipes), tuple(dict.fromkeys(findings))


def check_recipe(recipe: Recipe) -> None:
    """Raise AdapterError with the first rule that a recipe breaks."""
    for finding in _breaches(recipe):
        raise AdapterError(f"{finding.path}: {finding.key}: {finding.message}", fix=finding.fix)


def _breaches(recipe: Recipe) -> Iterator[Finding]:
    """The rules on a single recipe. Messages name no domain: a wrong default is one finding."""
    for rule, key, message, fix in chain(_method(recipe), _numbers(recipe), _modules(recipe)):
        yield Finding(rule, origin(recipe.path, key), key, message, fix)


def _method(recipe: Recipe) -> Iterator[_Breach]:
    if recipe.method != "lora":
        reason = REFUSED.get(recipe.method, f"It is {recipe.method!r}; there is no such method.")
        yield "method", "method", reason, 'Set method = "lora".'
    if recipe.full.base != BASE:
        yield "base", "full.base", f"It is {recipe.full.base!r}.", f'Set base = "{BASE}".'


def _numbers(recipe: Recipe) -> Iterator[_Breach]:
    full, small = recipe.full, recipe.small
    ratio = f"rank and alpha are {RANK}, 1:1"
    for rule, key, value, wanted, why in (
        ("rank", "full.rank", full.rank, RANK, ratio),
        ("rank", "full.alpha", full.alpha, RANK, ratio),
        ("rank", "small.rank", small.rank, RANK, ratio),
        ("rank", "small.alpha", small.alpha, RANK, ratio),
        ("layers", "full.layers", full.layers, LAYERS, "8 learn too little, 40 overfit"),
        ("learning rate", "full.learning_rate", full.learning_rate, LEARNING_RATE,
         "higher ones forget more of the base"),
        ("memory", "memory_limit_gb", recipe.memory_limit_gb, MEMORY_LIMIT_GB, "for 512 GB"),
        ("memory", "cache_limit_gb", recipe.cache_limit_gb, CACHE_LIMIT_GB,
         "less hangs the GPU on long runs"),
    ):  # fmt: skip
        if value != wanted:
            name = key.rpartition(".")[2]
            yield rule, key, f"It is {value}, not {wanted}: {why}.", f"Set {name} = {wanted}."
    fewest, most = ITERATIONS[recipe.family]
    if not fewest <= full.iterations <= most:
        span = str(most) if fewest == most else f"{fewest} to {most}"
        message = f"It is {full.iterations}; the {recipe.family} take {span}."
        yield "iterations", "full.iterations", message, f"Set iterations = {most}."


def _modules(recipe: Recipe) -> Iterator[_Breach]:
    names = recipe.full.modules
    for fault, which in (
        ("repeats", sorted(name for name, count in Counter(names).items() if count > 1)),
        ("lacks", sorted(MOE_KINDS - set(names))),
        ("has the unknown", sorted(set(names) - MOE_KINDS)),
    ):
        if which:
            message = f"The list {fault} {', '.join(which)}."
            yield "modules", "full.modules", message, f"Name the {len(MOE_KINDS)} kinds once each."


def _curriculum(recipes: Sequence[Recipe]) -> Iterator[Finding]:
    """Positions 1 to n without gaps or repeats; no family before an earlier one has ended."""
    ordered = sorted(recipes, key=lambda recipe: (recipe.position, recipe.domain))
    taken = Counter(recipe.position for recipe in ordered)
    free = sorted(set(range(1, len(ordered) + 1)) - taken.keys())
    latest = 0
    for recipe in ordered:
        if taken[recipe.position] > 1:
            message = f"It is {recipe.position} in {taken[recipe.position]} recipes."
            yield _position(recipe, message, f"Free: {', '.join(map(str, free)) or 'none'}.")
        elif recipe.position > len(ordered):
            message = f"It is {recipe.position} of {len(ordered)}."
            yield _position(recipe, message, f"Free: {', '.join(map(str, free))}.")
        stage = FAMILIES.index(recipe.family)
        if stage < latest:
            message = f"It is {recipe.position}, after the first of the {FAMILIES[latest]}."
            yield _position(recipe, message, f"The order is {', then '.join(FAMILIES)}.")
        latest = max(latest, stage)


def _position(recipe: Recipe, message: str, fix: str) -> Finding:
    return Finding("curriculum", recipe.path, "position", message, fix)


def _table(folder: Path, files: Iterable[Path], families: Mapping[str, str]) -> Iterator[Finding]:
    """Every domain of the routing table has exactly one recipe, in its family, and the reverse."""
    by_domain: dict[str, list[Path]] = {}
    for file in files:
        by_domain.setdefault(file.stem, []).append(file)
    for domain, family in families.items():
        right = folder / family / f"{domain}.toml"
        if domain not in by_domain:
            yield Finding("domains", right, "", "The domain has no recipe.", "Write this file.")
        for file in by_domain.get(domain, []):
            if file != right:
                message = f"The routing table has {domain} among the {family}."
                yield Finding("domains", file, "", message, f"Move it to {right}.")
    for domain in sorted(by_domain.keys() - families.keys()):
        message = f"The routing table has no domain {domain!r}."
        for file in by_domain[domain]:
            yield Finding("domains", file, "", message, "Add it to routing/domains.toml.")


def _pre_pivot(files: Iterable[Path]) -> Iterator[Finding]:
    for file in files:
        try:
            match = _PRE_PIVOT.search(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue  # reading it as TOML says what is wrong
        if match:
            message = f"It names {match[0]}, which the project left for {BASE}."
            yield Finding("base", file, "", message, f"Name {BASE}.")


def _from_fault(fault: Fault) -> Finding:
    return Finding("schema", fault.path, fault.key, fault.message, fault.fix)
