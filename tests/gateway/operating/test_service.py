"""``kiki service`` and the files below deploy/, as far as a machine without systemd allows."""

from __future__ import annotations

import json
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.service import command
from gateway.operating import systemd
from gateway.operating.installation import DEPLOY

UNITS = sorted((DEPLOY / "systemd").glob("kiki*.*"))
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def service(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


@needs_analyze
def test_systemd_finds_nothing_wrong_with_the_units():
    units = [unit for unit in UNITS if unit.suffix in (".service", ".socket", ".timer")]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *units], check=False, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@needs_analyze
@pytest.mark.parametrize("unit", ["kiki.service", "kiki-sleep.service"])
def test_the_gateways_units_are_exposed_less_than_three(unit):
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", DEPLOY / "systemd" / unit],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", checked.stdout)
    assert found
    assert float(found.group(1)) < 3


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_the_user_of_the_service_can_be_made(tmp_path):
    users = DEPLOY / "systemd" / "kiki.sysusers"
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(users)], check=True)
    assert "kiki:" in (tmp_path / "etc" / "passwd").read_text()


def test_an_installation_is_repeatable_and_leaves_the_operators_settings_alone(tmp_path):
    first = service("install", "--manager", "systemd", "--root", str(tmp_path))
    assert first.exit_code == 0, first.output
    mine = tmp_path / "etc" / "kiki" / "kiki.env"
    assert mine.stat().st_mode & 0o777 == 0o640
    mine.write_text("KIKI_PORT=9000\n")
    unit = tmp_path / "etc/systemd/system/kiki.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSec=9"))

    again = service("install", "--manager", "systemd", "--root", str(tmp_path))
    lines = [line.split() for line in again.output.splitlines() if re.match(r"\w+ +/etc", line)]
    changes: dict[str, str] = {path: change for change, path in lines}
    assert changes["/etc/kiki/kiki.env"] == "kept"
    assert changes["/etc/systemd/system/kiki.service"] == "written"
    assert changes["/etc/systemd/system/kiki.socket"] == "unchanged"
    assert mine.read_text() == "KIKI_PORT=9000\n"
    assert unit.read_text() == (DEPLOY / "systemd" / "kiki.service").read_text()


def test_the_service_calls_the_kiki_that_installed_it(tmp_path):
    service("install", "--manager", "systemd", "--root", str(tmp_path))
    drop_in = tmp_path / "etc/systemd/system/kiki.service.d/10-program.conf"
    assert f"PATH={Path(sys.executable).parent}:" in drop_in.read_text()


@pytest.mark.parametrize("vllm", [(), ("--vllm", "/bin/true")])
def test_uninstalling_leaves_only_what_is_the_operators(tmp_path, vllm):
    service("install", "--manager", "systemd", "--root", str(tmp_path), *vllm)
    gone = service("uninstall", "--manager", "systemd", "--root", str(tmp_path))
    assert gone.exit_code == 0, gone.output
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == ({"kiki.env", "vllm.env"} if vllm else {"kiki.env"})
    assert str(tmp_path / "etc" / "kiki") in gone.output


def test_a_dry_run_writes_nothing(tmp_path):
    said = service("install", "--manager", "systemd", "--root", str(tmp_path), "--dry-run")
    assert "systemctl enable --now kiki.socket kiki.service kiki-sleep.timer" in said.output
    assert not list(tmp_path.iterdir())


def test_a_program_that_the_service_could_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.cli.service._program", lambda: Path("/home/anna/kiki/bin/kiki"))
    refused = service("install", "--manager", "systemd")
    assert "can't see /home/anna/kiki/bin/kiki" in str(refused.exception)


def test_a_machine_without_a_manager_is_told_so(monkeypatch):
    monkeypatch.setattr(systemd, "running", lambda: False)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    refused = service("status")
    assert "neither systemd nor launchd" in str(refused.exception)
    assert "--root" in str(refused.exception)


def test_the_agents_of_a_mac_call_this_kiki_and_log_into_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/Users/anna")
    made = service("install", "--manager", "launchd", "--root", str(tmp_path))
    assert made.exit_code == 0, made.output
    agents = tmp_path / "Users/anna/Library/LaunchAgents"
    gateway, sleep = (
        plistlib.loads((agents / f"ai.kiki.{name}.plist").read_bytes())
        for name in ("gateway", "sleep")
    )
    program = str(Path(sys.executable).with_name("kiki"))
    assert gateway["ProgramArguments"] == [program, "serve"]
    assert sleep["ProgramArguments"] == [program, "memory", "sleep"]
    assert gateway["KeepAlive"] == {"SuccessfulExit": False}
    for agent in (gateway, sleep):
        assert "/opt/kiki" not in str(agent)
        assert agent["StandardErrorPath"].startswith("/Users/anna/Library/Logs/kiki/")


def test_the_status_is_told_in_the_managers_words(tmp_path, monkeypatch):
    told = (
        "Id=kiki.service\nLoadState=loaded\nActiveState=active\nSubState=running\n"
        "UnitFileState=enabled\nActiveEnterTimestamp=Tue 2026-11-24 03:00:00 UTC\n\n"
        "Id=kiki-vllm.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n"
        "UnitFileState=\nActiveEnterTimestamp=\n"
    )
    fake = tmp_path / "systemctl"
    fake.write_text(f"#!/bin/sh\ncat <<'END'\n{told}END\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = service("status", "--manager", "systemd", "--json")
    assert said.exit_code == 0
    gateway, vllm = json.loads(said.output)
    assert gateway["state"] == "active (running), enabled"
    assert (vllm["state"], vllm["runs"]) == ("not installed", False)


def test_the_settings_of_the_unit_reach_commands_that_are_run_for_it(tmp_path):
    (tmp_path / "kiki.env").write_text('# note\nKIKI_ENGINE=vllm\nKIKI_MODEL="a b"\n')
    given = systemd.environment(tmp_path)
    assert (given["KIKI_ENGINE"], given["KIKI_MODEL"]) == ("vllm", "a b")
    unit = (DEPLOY / "systemd" / "kiki.service").read_text()
    for name in ("HOME", "KIKI_DATA_DIR", "KIKI_MODELS_DIR"):
        assert f"Environment={name}={given[name]}\n" in unit
