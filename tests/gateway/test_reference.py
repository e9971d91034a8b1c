"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.cli.reference import DOCS, PAGES, settings_page
from gateway.settings import Settings

# In a process of its own: click keeps a command's help option as the first caller wanted it.
MAKE = "from gateway.cli import reference; print(getattr(reference, '{}')(), end='')"


@pytest.mark.parametrize(
    ("name", "function"), [(PAGES[0], "settings_page"), (PAGES[1], "cli_page")]
)
def test_a_page_is_what_the_code_makes(name, function):
    made = subprocess.run(
        [sys.executable, "-c", MAKE.format(function)], check=True, capture_output=True, text=True
    ).stdout
    fix = "run: python -m gateway.cli.reference"
    assert (DOCS / name).read_text() == made, f"docs/{name} is behind the code; {fix}"


def test_every_setting_has_a_meaning_and_stands_on_the_page_once():
    page = settings_page()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert page.count(f"| `{name}` |") == 1, name
