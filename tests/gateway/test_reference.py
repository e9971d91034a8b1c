"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import pytest

from gateway.cli.reference import DOCS, PAGES, cli_page, settings_page
from gateway.settings import Settings


@pytest.mark.parametrize(("name", "made"), [(PAGES[0], settings_page), (PAGES[1], cli_page)])
def test_a_page_is_what_the_code_makes(name, made):
    fix = "run: python -m gateway.cli.reference"
    assert (DOCS / name).read_text() == made(), f"docs/{name} is behind the code; {fix}"


def test_every_setting_has_a_meaning_and_stands_on_the_page_once():
    page = settings_page()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert page.count(f"| `{name}` |") == 1, name
