"""README and CONTRIBUTING say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from gateway.api.chat_schemas import ChatRequest
from gateway.api.fields import refuse_unserved
from gateway.api.schemas import KikiOptions
from gateway.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_request_option_is_in_the_readmes_table_and_none_more():
    table = README.split("| in `kiki` |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows(table))))
    assert named == set(KikiOptions.model_fields)


def test_nothing_waits_to_be_filled_in():
    assert not re.search(r"\b[A-Z]+_(TIME|ROWS)\b|\bMACHINE\b", README)


def test_every_command_is_in_the_readme_and_exists():
    block = README.split("## The command line")[1].split("```")[1]
    named = {line.split()[1] for line in block.strip().splitlines()}
    assert named == set(cli.list_commands(click.Context(cli)))


def test_the_curl_example_is_a_valid_request():
    body = re.search(r"-d '(\{.*?\n\})'", README, re.S)
    assert body
    request = ChatRequest.model_validate(json.loads(body.group(1)))
    refuse_unserved(request.model_extra or {}, frozenset())


def test_the_python_example_compiles():
    code = README.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def rows(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
