"""Read recipes from their TOML files, over what ``defaults.toml`` says for all."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.recipes.recipe import FAMILIES, Hyperparameters, Recipe
from kiki.errors import AdapterError
from kiki.names import near

RECIPES = Path(__file__).parent
DEFAULTS = "defaults.toml"

DORA = (
    "DoRA isn't possible on this base: its experts are SwitchLinear modules, which have no DoRA "
    "form (mlx_lm refuses them)."
)
QLORA = (
    "Training over 4-bit weights (QLoRA, bitsandbytes) corrupts the expert layers of this "
    "mixture of experts; it is trained in BF16."
)
REFUSED = {"dora": DORA, "qlora": QLORA, "bitsandbytes": QLORA}
"""Methods that are refused, and why."""

_REFUSED_KEYS = {"dora": DORA, "4bit": QLORA, "8bit": QLORA, "bnb": QLORA, "quant": QLORA}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a file: at ``key`` (dotted, "" for the whole file), and what to do."""

    path: Path
    key: str
    message: str
    fix: str


def load_recipes(folder: Path = RECIPES) -> tuple[Recipe, ...]:
    """All recipes of a folder, in curriculum order. Raises AdapterError for a wrong one."""
    recipes = []
    for path in recipe_files(folder):
        recipe = parse_recipe(path)
        if isinstance(recipe, tuple):
            raise _error(recipe[0])
        recipes.append(recipe)
    return tuple(sorted(recipes, key=lambda recipe: recipe.position))


def load_recipe(domain: str, folder: Path = RECIPES) -> Recipe:
    """The recipe of a domain. Raises AdapterError where there is none, or it is wrong."""
    files = {path.stem: path for path in recipe_files(folder)}
    if domain not in files:
        raise AdapterError(
            f"There is no recipe for {domain!r} in {folder}.{near(domain, files)}",
            fix=f"Write {folder}/FAMILY/{domain}.toml.",
        )
    recipe = parse_recipe(files[domain])
    if isinstance(recipe, tuple):
        raise _error(recipe[0])
    return recipe


def recipe_files(folder: Path) -> list[Path]:
    """The recipes' files: one folder a family. Raises AdapterError for no folder of recipes."""
    if not (folder / DEFAULTS).is_file():
        raise AdapterError(
            f"{folder} is no folder of recipes: it has no {DEFAULTS}.",
            fix=f"The packaged ones are in {RECIPES}.",
        )
    return sorted(path for family in FAMILIES for path in (folder / family).glob("*.toml"))


def parse_recipe(path: Path) -> Recipe | tuple[Fault, ...]:
    """The recipe in ``path`` over its folder's defaults, or all that is wrong with it."""
    defaults = path.parent.parent / DEFAULTS
    shared, own = _read(defaults), _read(path)
    faults = [table for table in (shared, own) if isinstance(table, Fault)]
    if isinstance(shared, Fault) or isinstance(own, Fault):
        return tuple(faults)
    merged = _merge(shared, own)
    by_family = shared.get("iterations")
    merged.pop("iterations", None)
    family = path.parent.name
    if isinstance(by_family, dict) and isinstance(merged.get("full"), dict):
        merged["full"].setdefault("iterations", by_family.get(family))
    merged |= {"domain": path.stem, "family": family, "path": path}
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        return tuple(_fault(path, defaults, own, wrong) for wrong in error.errors())


def origin(path: Path, key: str) -> Path:
    """The file that sets ``key`` (dotted) of a recipe: its own, or the defaults."""
    own = _read(path)
    return path if isinstance(own, dict) and _has(own, key) else path.parent.parent / DEFAULTS


def _read(path: Path) -> dict[str, Any] | Fault:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        return Fault(path, "", f"It can't be read: {error}.", "Correct it, or restore it.")


def _merge(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(shared)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(shared.get(key), dict)
        merged[key] = _merge(shared[key], value) if both else value
    # Copies, so that what is added to one recipe's tables is not added to the defaults.
    return {key: dict(value) if isinstance(value, dict) else value for key, value in merged.items()}


def _has(table: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _fault(path: Path, defaults: Path, own: dict[str, Any], wrong: Any) -> Fault:
    key = ".".join(str(part) for part in wrong["loc"] if not isinstance(part, int))
    kind = wrong["type"]
    where = path if kind == "missing" or _has(own, key) else defaults
    if kind == "missing":
        return Fault(path, key, "It is missing.", f"Set it here, or for all in {DEFAULTS}.")
    if kind == "extra_forbidden":
        for part, reason in _REFUSED_KEYS.items():
            if part in key:
                return Fault(where, key, reason, "Remove the key; train a plain LoRA.")
        known = {*Recipe.model_fields, *Hyperparameters.model_fields}
        message = f"There is no such key.{near(key.split('.')[-1], known)}"
        return Fault(where, key, message, "Remove or correct it.")
    return Fault(where, key, f"It is {wrong['input']!r}.", f"{wrong['msg']}.")


def _error(fault: Fault) -> AdapterError:
    at = f" {fault.key}:" if fault.key else ""
    return AdapterError(f"{fault.path}:{at} {fault.message}", fix=fault.fix)
