"""How the adapter of each domain is trained: one TOML file a domain, and the rules they keep."""

from adapters.recipes.loading import RECIPES, load_recipe, load_recipes
from adapters.recipes.recipe import FAMILIES, Hyperparameters, Recipe
from adapters.recipes.rules import Finding, check_recipe, validate

__all__ = [
    "FAMILIES",
    "RECIPES",
    "Finding",
    "Hyperparameters",
    "Recipe",
    "check_recipe",
    "load_recipe",
    "load_recipes",
    "validate",
]
