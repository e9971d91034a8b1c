from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.recipes import FAMILIES, RECIPES, load_recipe, load_recipes
from adapters.recipes.loading import parse_recipe
from adapters.recipes.recipe import Recipe
from adapters.training.card import read_card
from kiki.errors import AdapterError
from routing.domains import load_domains

SHIPPED = RECIPES.parent / "shipped"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recipes that a test may spoil."""
    return Path(shutil.copytree(RECIPES, tmp_path / "recipes"))


def test_every_domain_has_a_recipe_in_the_curriculums_order():
    recipes = load_recipes()
    domains = load_domains().domains
    assert [recipe.position for recipe in recipes] == list(range(1, 36))
    assert {r.domain: r.family for r in recipes} == {d.name: d.family for d in domains}
    families = [FAMILIES.index(recipe.family) for recipe in recipes]
    assert families == sorted(families)


def test_a_recipe_holds_the_invariants_of_the_large_base():
    full = load_recipe("kicad-dsl").full
    assert (full.base, full.layers, full.rank, full.scale) == ("Qwen/Qwen3.6-35B-A3B", 32, 16, 1)
    assert len(set(full.modules)) == 17
    assert [load_recipe(name).full.iterations for name in ("chat-fr", "rust", "math")] == [
        1000,
        500,
        100,
    ]


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir()))
def test_a_shipped_adapter_was_trained_by_its_recipe(name):
    card, recipe = read_card(SHIPPED / name), load_recipe(name)
    small = recipe.small
    assert (card.base, card.rank, card.alpha) == (small.base, small.rank, small.alpha)
    assert (card.steps, card.learning_rate) == (small.iterations, small.learning_rate)
    assert (card.batch_rows, card.seed) == (small.batch_rows, recipe.seed)
    assert [f"self_attn.{module}" for module in card.modules] == list(small.modules)


def test_a_recipe_cannot_be_changed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("sql").full.rank = 8  # type: ignore[misc]


def test_what_a_recipe_sets_itself_wins_over_the_defaults(folder):
    path = folder / "niches" / "dsp.toml"
    path.write_text("position = 22\nseed = 5\n[full]\niterations = 120\n")
    recipe = load_recipe("dsp", folder)
    assert (recipe.seed, recipe.full.iterations, recipe.full.rank) == (5, 120, 16)
    assert load_recipe("emc", folder).full.iterations == 150


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("position = ", "can't be read"),
        ("", "position: It is missing. Set it here"),
        ('position = "one"', "position: It is 'one'.*valid integer"),
        ("position = 1\n[full]\nrank = 0", r"full\.rank: It is 0.*greater than or equal to 1"),
        ("position = 1\n[full]\nrnak = 16", r"full\.rnak: There is no such key. Did you mean rank"),
        ("position = 1\nuse_dora = true", "use_dora: DoRA isn't possible .* SwitchLinear"),
        ("position = 1\n[full]\nload_in_4bit = true", "corrupts the expert layers"),
        ("position = 1\n[full]\nschedule = 'linear'", "It is 'linear'.*'constant' or 'cosine'"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_file_key_value_and_fix(folder, text, said):
    path = folder / "coding" / "rust.toml"
    path.write_text(text)
    with pytest.raises(AdapterError, match=rf"rust\.toml.*{said}"):
        load_recipe("rust", folder)
    with pytest.raises(AdapterError, match=said):
        load_recipes(folder)


def test_a_wrong_default_is_laid_at_the_defaults_door(folder):
    path = folder / "defaults.toml"
    path.write_text(path.read_text().replace("rank = 16", "rank = true", 1))
    with pytest.raises(AdapterError, match=r"defaults\.toml: full\.rank: It is True"):
        load_recipe("rust", folder)


def test_an_unknown_domain_names_the_near_ones():
    with pytest.raises(AdapterError, match=r"no recipe for 'pyton'.*Did you mean python"):
        load_recipe("pyton")


def test_a_folder_without_defaults_is_no_folder_of_recipes(tmp_path):
    with pytest.raises(AdapterError, match=r"has no defaults\.toml"):
        load_recipes(tmp_path)


@given(text=st.text(max_size=80))
def test_whatever_a_file_holds_it_is_a_recipe_or_a_list_of_faults(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "defaults.toml").write_text((RECIPES / "defaults.toml").read_text())
    (folder / "niches").mkdir()
    path = folder / "niches" / "any.toml"
    path.write_bytes(text.encode("utf-8", "replace"))
    found = parse_recipe(path)
    assert isinstance(found, Recipe) or all(fault.message and fault.fix for fault in found)
