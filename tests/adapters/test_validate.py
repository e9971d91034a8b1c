from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapters.recipes import RECIPES, check_recipe, load_recipe, validate
from gateway.cli import cli
from kiki.errors import AdapterError
from routing.domains import load_domains

FAMILIES = {domain.name: domain.family for domain in load_domains().domains}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recipes that a test may spoil."""
    return Path(shutil.copytree(RECIPES, tmp_path / "recipes"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def findings(folder: Path) -> list[tuple[str, str, str]]:
    """Rule, file and key of each finding."""
    _, found = validate(folder, FAMILIES)
    assert all(one.message.endswith(".") and one.fix.endswith(".") for one in found)
    return [(one.rule, one.path.name, one.key) for one in found]


def test_the_recipes_of_this_project_keep_every_rule():
    recipes, found = validate(families=FAMILIES)
    assert (len(recipes), found) == (35, ())


@pytest.mark.parametrize(
    ("old", "new", "rule", "key"),
    [
        ("rank = 16", "rank = 32", "rank", "full.rank"),
        ("alpha = 16", "alpha = 32", "rank", "full.alpha"),
        ("layers = 32", "layers = 40", "layers", "full.layers"),
        ("learning_rate = 1e-5", "learning_rate = 2e-4", "learning rate", "full.learning_rate"),
        ("Qwen/Qwen3.6-35B-A3B", "Qwen/Qwen3-8B", "base", "full.base"),
        ('method = "lora"', 'method = "dora"', "method", "method"),
        ('method = "lora"', 'method = "qlora"', "method", "method"),
        ('method = "lora"', 'method = "prefix"', "method", "method"),
        ('    "mlp.gate",\n', "", "modules", "full.modules"),
        ('"mlp.gate"', '"mlp.gates"', "modules", "full.modules"),
        ('"mlp.gate"', '"mlp.gate", "mlp.gate"', "modules", "full.modules"),
        ("memory_limit_gb = 460", "memory_limit_gb = 500", "memory", "memory_limit_gb"),
        ("cache_limit_gb = 32", "cache_limit_gb = 4", "memory", "cache_limit_gb"),
        ("seed = 0", 'seed = "0"', "schema", "seed"),
    ],
)
def test_a_rule_broken_in_the_defaults_is_named_there(folder, old, new, rule, key):
    change(folder / "defaults.toml", old, new)
    found = findings(folder)
    assert (rule, "defaults.toml", key) in found
    assert {entry[:2] for entry in found} == {(rule, "defaults.toml")}


def test_refused_methods_give_their_reasons(folder):
    reasons = {}
    for method in ("dora", "qlora", "bitsandbytes"):
        (folder / "niches" / "dsp.toml").write_text(f'position = 22\nmethod = "{method}"\n')
        (found,) = validate(folder, FAMILIES)[1]
        reasons[method] = found.message
    assert "SwitchLinear" in reasons["dora"]
    assert "corrupts the expert layers" in reasons["qlora"]
    assert "corrupts the expert layers" in reasons["bitsandbytes"]


@pytest.mark.parametrize(
    ("file", "iterations"),
    [("foundations/python", 999), ("coding/rust", 1000), ("niches/dsp", 99), ("niches/dsp", 201)],
)
def test_iterations_belong_to_the_family(folder, file, iterations):
    path = folder / f"{file}.toml"
    path.write_text(path.read_text().split("\n\n")[0] + f"\n[full]\niterations = {iterations}\n")
    assert findings(folder) == [("iterations", path.name, "full.iterations")]


def test_two_recipes_at_one_position_are_both_named_with_the_free_one(folder):
    change(folder / "coding" / "rust.toml", "position = 5", "position = 6")
    assert findings(folder) == [
        ("curriculum", "rust.toml", "position"),
        ("curriculum", "typescript.toml", "position"),
    ]
    assert "Free: 5." in str(validate(folder, FAMILIES)[1][0])


def test_a_gap_in_the_curriculum_is_found(folder):
    change(folder / "niches" / "spice-sim.toml", "position = 35", "position = 36")
    assert findings(folder) == [("curriculum", "spice-sim.toml", "position")]


def test_a_niche_before_a_foundation_is_found(folder):
    change(folder / "foundations" / "python.toml", "position = 3", "position = 17")
    change(folder / "niches" / "math.toml", "position = 17", "position = 3")
    found = findings(folder)
    assert ("curriculum", "python.toml", "position") in found
    assert {rule for rule, _, _ in found} == {"curriculum"}


def test_a_name_from_before_the_pivot_is_found_even_in_a_comment(folder):
    path = folder / "coding" / "sql.toml"
    path.write_text("# was Qwen3.5-4B\n" + path.read_text())
    assert findings(folder) == [("base", "sql.toml", "")]


def test_recipes_and_routing_table_name_the_same_domains_in_the_same_families(folder):
    (folder / "coding" / "sql.toml").rename(folder / "niches" / "sql.toml")
    (folder / "niches" / "emc.toml").rename(folder / "niches" / "emi.toml")
    found = findings(folder)
    assert ("domains", "sql.toml", "") in found
    assert ("domains", "emc.toml", "") in found  # has no recipe
    assert ("domains", "emi.toml", "") in found  # has no domain


def test_two_recipes_of_one_domain_are_found(folder):
    text = (folder / "niches" / "emc.toml").read_text().replace("position = 26", "position = 36")
    (folder / "coding" / "emc.toml").write_text(text)
    assert ("domains", "emc.toml", "") in findings(folder)


def test_training_checks_the_recipe_it_is_given():
    recipe = load_recipe("dsp")
    check_recipe(recipe)
    wrong = recipe.model_copy(update={"full": recipe.full.model_copy(update={"rank": 8})})
    with pytest.raises(AdapterError, match="rank and alpha are 16"):
        check_recipe(wrong)


def test_the_command_says_that_all_is_well_and_exits_0():
    done = CliRunner().invoke(cli, ["adapters", "validate"])
    assert (done.exit_code, done.output) == (0, "35 recipes read: all rules are kept.\n")


def test_the_command_exits_1_and_names_file_key_and_fix(folder):
    change(folder / "defaults.toml", "rank = 16", "rank = 8")
    done = CliRunner().invoke(cli, ["adapters", "validate", str(folder)])
    assert done.exit_code == 1
    assert "defaults.toml: full.rank: It is 8, not 16" in done.output
    assert "Set rank = 16. [rank]" in done.output

    as_json = CliRunner().invoke(cli, ["adapters", "validate", str(folder), "--json"])
    (found,) = json.loads(as_json.output)["findings"]
    assert as_json.exit_code == 1
    assert (found["rule"], found["key"], found["fix"]) == ("rank", "full.rank", "Set rank = 16.")


def test_one_file_is_checked_by_itself(folder):
    path = folder / "niches" / "dsp.toml"
    path.write_text("position = 99\n")
    assert CliRunner().invoke(cli, ["adapters", "validate", str(path)]).exit_code == 0
    path.write_text("position = 99\nmethod = 'dora'\n")
    assert CliRunner().invoke(cli, ["adapters", "validate", str(path)]).exit_code == 1
