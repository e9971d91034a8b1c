"""Every command in README and docs is run, or says why it isn't.

A block of commands has a comment before it: ``<!-- run -->`` or ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.test_process import gateway

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "cli.md"),
    *sorted((ROOT / "examples").glob("*.md")),
]
BLOCK = re.compile(r"(<!--[^\n]*-->\n)?(?: {3})?```(sh|bash|console|)\n(.*?)\n *```", re.S)
PROGRAMS = (
    r"(sudo |\$ )?"
    r"(kiki|make|curl|pip|docker|kubectl|cd|python|\S*\.venv/bin/\S+|scripts/\S+)\s"
)
HERE = "http://localhost:8000"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The comment before each block of commands, and its text."""
    for comment, language, text in BLOCK.findall(page.read_text()):
        if language or re.match(PROGRAMS, text.strip()):
            yield comment.strip(), text


RUN = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (comment, text) in enumerate(blocks(page))
    if comment == "<!-- run -->"
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_of_commands_is_run_or_says_why_not(page):
    for comment, text in blocks(page):
        assert re.fullmatch(r"<!-- (run|not run: .+) -->", comment), text


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    with gateway(tmp_path_factory.mktemp("docs-gateway")) as running:
        yield str(running.client.base_url).rstrip("/")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("text", RUN)
def test_the_commands_of_a_block_run(text, address, tmp_path):
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(paths),
        "CLONE": str(ROOT),
        "KIKI_DATA_DIR": str(tmp_path / "data"),
    }
    script = text.replace(HERE, address).replace(".venv/bin/", "").replace("curl ", "curl -f ")
    ran = subprocess.run(
        ["bash", "-euc", script],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
