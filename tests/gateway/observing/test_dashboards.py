"""The committed dashboards and alerts agree with the code, with each other, and with the docs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.observing.dashboards import DASHBOARDS
from gateway.observing.files import DASHBOARD_DIR, RULES, dashboard_files
from gateway.telemetry import Telemetry

ROOT = Path(__file__).parents[3]
RULES_TEST = Path(__file__).with_name("rules_test.yml")
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
EXPRESSIONS = [
    query.expr for dashboard in DASHBOARDS for panel in dashboard.panels for query in panel.queries
] + [alert["expr"] for alert in ALERTS]
SCRAPED = {"process_resident_memory_bytes", "up"}


def test_the_committed_dashboards_are_what_the_code_makes():
    committed = {path.name: path.read_text() for path in DASHBOARD_DIR.glob("*.json")}
    assert committed == dashboard_files(), "stale: python -m gateway.observing dashboards"


def test_panels_of_a_dashboard_have_different_titles():
    for dashboard in DASHBOARDS:
        titles = [panel.title for panel in dashboard.panels]
        assert len(set(titles)) == len(titles), dashboard.uid


def test_panels_and_alerts_ask_only_for_metrics_that_kiki_has():
    known = set(SCRAPED)
    for one in Telemetry().described:
        known |= (
            {f"{one.name}_{part}" for part in ("bucket", "sum", "count")}
            if one.kind == "histogram"
            else {one.name}
        )
    for expr in EXPRESSIONS:
        asked = set(re.findall(r"\b(?:kiki|gen_ai_server|gen_ai_client|process)_\w+|\bup\b", expr))
        assert asked, expr
        assert asked <= known, expr


def test_panels_read_the_provisioned_data_source():
    provisioned = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/kiki.yml").read_text()
    )
    (source,) = provisioned["datasources"]
    for text in dashboard_files().values():
        assert set(re.findall(r'"uid": "(kiki-prometheus|[^k"][^"]*)"', text)) == {source["uid"]}


def test_grafana_reads_the_dashboards_where_the_compose_file_puts_them():
    provisioned = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/kiki.yml").read_text()
    )
    path = provisioned["providers"][0]["options"]["path"]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())
    assert f"../deploy/grafana/dashboards:{path}:ro" in compose["services"]["grafana"]["volumes"]


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_names_its_panel_its_page_and_has_a_test(alert):
    notes = alert["annotations"]
    panels = {one.uid: {panel.title for panel in one.panels} for one in DASHBOARDS}
    assert notes["panel"] in panels[notes["dashboard"]]
    page, section = notes["runbook"].split("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.M)
    assert section in [heading.lower().replace(" ", "-") for heading in headings]
    tested = {test["name"] for test in yaml.safe_load(RULES_TEST.read_text())["tests"]}
    assert alert["alert"] in tested


def test_every_section_of_the_runbook_is_an_alerts():
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)
    assert headings == [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("command", [["check", "rules", RULES], ["test", "rules", RULES_TEST]])
def test_promtool_finds_the_rules_right_and_each_alert_fires_when_it_should(command):
    promtool = shutil.which("promtool")
    if promtool is None:
        reason = "promtool isn't there; as root: scripts/debian-tools prometheus"
        if os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    ran = subprocess.run([promtool, *command], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
