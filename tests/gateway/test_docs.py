"""The settings that the documentation shows, held against those that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import cli
from gateway.engines import Machine, choose_engine
from gateway.settings import Settings, load_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
LAPTOP = Machine(apple_silicon=False, nvidia=False, mlx=False, vllm=False)
_BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`([a-z_]+ = [^`]+)`")
_VARIABLE = re.compile(r"\bKIKI_([A-Z_]*[A-Z])\b")

BLOCKS = _BLOCK.findall((DOCS / "engines.md").read_text())
BUILDS = [block for block in BLOCKS if "engine =" in block]
SHARED = next(block for block in BLOCKS if "engine =" not in block)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv("KIKI_" + name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: tomllib.loads(build)["engine"])
def test_each_build_of_the_production_base_is_a_kiki_toml_that_config_takes(build, tmp_path):
    text = (SHARED + build).replace("/srv/kiki", str(tmp_path))
    shown = tomllib.loads(text)
    if shown["model"].endswith(".gguf"):
        Path(shown["model"]).touch()
    (tmp_path / "kiki.toml").write_text(text)
    result = CliRunner().invoke(cli, ["config", "--json"])
    assert result.exit_code == 0, result.output
    taken = json.loads(result.stdout)
    for name in shown.keys() - {"adapter_memory"}:
        assert taken[name] == shown[name]
    assert choose_engine(load_settings(), LAPTOP).engine == shown["engine"]


def test_all_three_engines_have_their_build():
    assert {tomllib.loads(build)["engine"] for build in BUILDS} == {"mlx", "vllm", "llamacpp"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_setting_that_a_page_names_with_a_value_is_one_and_takes_it(page, tmp_path):
    for line in _INLINE.findall(page.read_text()):
        (tmp_path / "kiki.toml").write_text(line)
        result = CliRunner().invoke(cli, ["config", "--json"])
        assert result.exit_code == 0, f"{page.name}: {line}: {result.exception}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_variable_that_a_page_names_is_a_setting(page):
    named = {name.lower() for name in _VARIABLE.findall(page.read_text())}
    assert named - {"config"} <= set(Settings.model_fields)
