"""deploy/grafana/dashboards, written from the code."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.observing.dashboards import DASHBOARDS
from gateway.observing.panels import dashboard_json

ROOT = Path(__file__).parents[2]
DASHBOARD_DIR = ROOT / "deploy" / "grafana" / "dashboards"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"


def dashboard_files() -> dict[str, str]:
    """The name and the text of each file."""
    return {
        f"{one.uid}.json": json.dumps(dashboard_json(one), indent=2) + "\n" for one in DASHBOARDS
    }


def write_dashboards() -> list[Path]:
    """Write them all; returns where."""
    written = []
    for name, text in dashboard_files().items():
        (DASHBOARD_DIR / name).write_text(text)
        written.append(DASHBOARD_DIR / name)
    return written
