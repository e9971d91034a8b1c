"""``python -m gateway.telemetry``: write docs/metrics.md."""

from __future__ import annotations

from pathlib import Path

from gateway.telemetry.table import page

(Path(__file__).parents[2] / "docs" / "metrics.md").write_text(page())
