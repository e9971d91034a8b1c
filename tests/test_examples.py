"""The scripts of examples/ run against a real gateway and show what they say they show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_process import gateway

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWS = {
    "foundations.py": "memory:",
    "coding.py": "negotiate",
    "niches.py": "the base answers: no adapter for stm32",
    "tools.py": '"name":"weather"',
}


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    with gateway(tmp_path_factory.mktemp("examples-gateway")) as running:
        yield f"{str(running.client.base_url).rstrip('/')}/v1"


@pytest.mark.parametrize(("name", "shown"), list(SHOWS.items()))
def test_an_example_runs(name, shown, address):
    ran = subprocess.run(
        [sys.executable, EXAMPLES / name],
        check=False,
        env=os.environ | {"OPENAI_BASE_URL": address},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert shown in ran.stdout


def test_every_example_is_run_and_told_about():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(SHOWS)
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in readme for name in scripts)
