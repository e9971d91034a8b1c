"""Images, compose file and Kubernetes folder, checked as far as that goes without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker" / "compose.yml"
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
PODS = [
    (path.name, document)
    for path in KUBERNETES
    for document in yaml.safe_load_all(path.read_text())
    if document["kind"] == "StatefulSet"
]


def tool(name: str, *arguments: str | Path) -> None:
    """Run a linter of this environment; what it finds is the test's message."""
    program = Path(sys.executable).with_name(name)
    ran = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_image_is_written_as_hadolint_likes_it():
    tool("hadolint", ROOT / "docker" / "gateway.Dockerfile")


def test_the_compose_file_keeps_the_compose_specification():
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_the_kubernetes_folder_keeps_the_apis_schemas():
    resources = [path for path in KUBERNETES if path.name != "kustomization.yaml"]
    tool("kubernetes-validate", "--strict", "--kubernetes-version", "1.31", *resources)


def test_the_kustomization_names_every_file():
    (kustomization,) = [path for path in KUBERNETES if path.name == "kustomization.yaml"]
    named = set(yaml.safe_load(kustomization.read_text())["resources"])
    assert named == {path.name for path in KUBERNETES} - {"kustomization.yaml"}


def test_yamllint_finds_nothing():
    rules = "{extends: relaxed, rules: {line-length: {max: 160}}}"
    tool("yamllint", "--strict", "-d", rules, ROOT / "docker", ROOT / "deploy" / "kubernetes")


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_pinned_confined_and_asked_for_its_health(name):
    service = SERVICES[name]
    assert "build" in service or re.search(r":v?\d+\.\d+\.\d+", service["image"]), service["image"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"].split(":")[0] not in ("", "0", "root")
    assert "healthcheck" in service or name == "gateway"  # its image has one


def test_the_gateways_image_runs_as_nobody_special_and_says_how_it_is():
    lines = (ROOT / "docker" / "gateway.Dockerfile").read_text()
    final = lines.rsplit("FROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", final, re.M)
    assert "HEALTHCHECK" in final


@pytest.mark.parametrize(("file", "pod"), PODS, ids=[name for name, _ in PODS])
def test_a_pod_is_confined_and_probed(file, pod):
    spec = pod["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        assert not container["image"].endswith(":latest")


def test_every_setting_that_a_deployment_names_exists():
    files = [
        *(ROOT / "docker").iterdir(),
        *(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
    ]
    known = {f"KIKI_{name.upper()}" for name in Settings.model_fields}
    known |= {"KIKI_CONFIG", "KIKI_ADAPTERS", "KIKI_PROMETHEUS_URL"}  # compose's and Grafana's own
    for file in files:
        named = set(re.findall(r"\bKIKI_[A-Z0-9_]+", file.read_text()))
        assert named <= known, f"{file.relative_to(ROOT)}: {named - known}"
