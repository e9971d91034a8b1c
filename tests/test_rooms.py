"""Who may import whom (CONTRIBUTING.md, "Where things are")."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"kiki", "gateway", "routing", "adapters", "memory", "negotiator", "antibias"}
MAY_IMPORT = {room: {"kiki", room} for room in ROOMS} | {"kiki": {"kiki"}, "gateway": ROOMS}
SERVER_ONLY = {"fastapi", "starlette", "uvicorn"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(room):
    for path in (ROOT / room).rglob("*.py"):
        names = imported(path)
        assert names & ROOMS <= MAY_IMPORT[room], path
        assert room == "gateway" or not names & SERVER_ONLY, path


def test_stages_never_import_each_other():
    folder = ROOT / "gateway" / "stages"
    for path in folder.glob("*.py"):
        assert not re.search(r"(from|import) gateway\.stages", path.read_text()), path


def test_the_pipeline_runs_the_stages_in_the_order_of_the_list():
    from gateway.pipeline import Pipeline
    from gateway.turn import STAGES

    assert tuple(Pipeline.__dataclass_fields__) == STAGES
