"""The agents below deploy/launchd as they stand in a user's home."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

from gateway.operating.installation import File, Installation, shipped

LABELS = ("ai.kiki.gateway", "ai.kiki.sleep")
_SHIPPED = "/opt/kiki"


def installation(program: Path, *, home: Path, user: int) -> Installation:
    """Agents of the user with that id: MLX needs the session of somebody who is logged in."""
    folder = home / "Library" / "Application Support" / "kiki"
    logs = home / "Library" / "Logs" / "kiki"
    agents = home / "Library" / "LaunchAgents"
    places = {
        f"{_SHIPPED}/.venv/bin/kiki": str(program),
        f"{_SHIPPED}/kiki.toml": str(folder / "kiki.toml"),
        f"{_SHIPPED}/log": str(logs),
    }
    files = [
        File(agents / f"{label}.plist", _moved(shipped(f"launchd/{label}.plist"), places))
        for label in LABELS
    ]
    files.append(File(folder / "kiki.toml", shipped("launchd/kiki.toml"), mode=0o600, yours=True))
    files.append(File(logs / "README", "The gateway turns its log over at 50 MB.\n"))
    domain = f"gui/{user}"
    return Installation(
        files=tuple(files),
        prepare=(),
        start=tuple(
            ("launchctl", "bootstrap", domain, str(agents / f"{label}.plist")) for label in LABELS
        ),
        end=tuple(("launchctl", "bootout", f"{domain}/{label}") for label in LABELS),
        folders=(folder, logs),
    )


def status_command(user: int, label: str) -> tuple[str, ...]:
    """Prints the agent's state, or ends with an error where it isn't loaded."""
    return ("launchctl", "print", f"gui/{user}/{label}")


def _moved(text: str, places: dict[str, str]) -> str:
    """The plist with its strings moved to this machine's places."""

    def moved(value: object) -> object:
        if isinstance(value, str):
            for old, new in places.items():
                value = value.replace(old, new)
            return value
        if isinstance(value, list):
            return [moved(part) for part in value]
        if isinstance(value, dict):
            return {key: moved(part) for key, part in value.items()}
        return value

    plist: dict[str, Any] = plistlib.loads(text.encode())
    for key, value in plist.items():
        plist[key] = moved(value)
    return plistlib.dumps(plist, sort_keys=False).decode()
