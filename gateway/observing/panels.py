"""A dashboard's parts, and the JSON that Grafana reads (schema 41, Grafana 12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

DATA_SOURCE = {"type": "prometheus", "uid": "kiki-prometheus"}
COLUMNS = 24
_WIDTH = 8
_HEIGHT = 8

Unit = Literal["short", "s", "reqps", "percentunit", "bytes", "cps"]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, with Grafana's ``$__rate_interval``; ``legend`` names its series by their labels."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """``marks`` are the values from which it turns orange and red; a falling pair marks what is
    too low."""

    title: str
    queries: tuple[Query, ...]
    unit: Unit
    meaning: str
    kind: Literal["timeseries", "stat"] = "timeseries"
    marks: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    panels: tuple[Panel, ...]


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["kiki"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "tags": ["kiki"], "title": "kiki", "keepTime": True}],
        "annotations": {"list": []},
        "templating": {"list": []},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    across = COLUMNS // _WIDTH
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATA_SOURCE,
        "gridPos": {
            "x": number % across * _WIDTH,
            "y": number // across * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {} if panel.kind == "stat" else {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "expr": query.expr,
                "legendFormat": query.legend,
                "datasource": DATA_SOURCE,
            }
            for place, query in enumerate(panel.queries)
        ],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": True}
    if panel.marks:
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(*panel.marks)}
        if panel.kind == "timeseries":
            defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
    return defaults


def _steps(warn: float, wrong: float) -> list[dict[str, Any]]:
    if warn < wrong:
        colours = ("green", "orange", "red")
    else:
        colours, warn, wrong = ("red", "orange", "green"), wrong, warn
    return [
        {"color": colours[0], "value": None},
        {"color": colours[1], "value": warn},
        {"color": colours[2], "value": wrong},
    ]
