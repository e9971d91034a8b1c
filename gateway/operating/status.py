"""How the services are, as systemd or launchd tell it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from gateway.operating import launchd, systemd
from kiki.errors import SettingsError


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """A unit or agent: ``state`` in the manager's words, ``since`` when it is so."""

    name: str
    state: str
    runs: bool
    since: str = ""


def systemd_status() -> list[UnitStatus]:
    """Every unit of ours, those that are not installed too."""
    blocks = _output(systemd.status_command()).strip().split("\n\n")
    return [_unit(block) for block in blocks if block]


def launchd_status(user: int) -> list[UnitStatus]:
    """Both agents, those that are not loaded too."""
    return [_agent(user, label) for label in launchd.LABELS]


def _unit(block: str) -> UnitStatus:
    told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    name = told.get("Id", "?")
    if told.get("LoadState") == "not-found":
        return UnitStatus(name, "not installed", runs=False)
    active, sub = told.get("ActiveState", "?"), told.get("SubState", "?")
    enabled = told.get("UnitFileState", "")
    state = f"{active} ({sub}){f', {enabled}' if enabled else ''}"
    return UnitStatus(name, state, active == "active", told.get("ActiveEnterTimestamp", ""))


def _agent(user: int, label: str) -> UnitStatus:
    ended = _ran(launchd.status_command(user, label))
    if ended.returncode:
        return UnitStatus(label, "not loaded", runs=False)
    found = re.search(r"^\s*state = (.+)$", ended.stdout, re.M)
    state = found.group(1) if found else "loaded"
    return UnitStatus(label, state, runs=state == "running")


def _output(line: tuple[str, ...]) -> str:
    ended = _ran(line)
    if ended.returncode:
        raise SettingsError(f"{' '.join(line[:2])} failed: {ended.stderr.strip()}")
    return ended.stdout


def _ran(line: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(line, check=False, capture_output=True, text=True)
    except OSError as error:
        raise SettingsError(f"{line[0]} can't be run: {error.strerror}.") from error
