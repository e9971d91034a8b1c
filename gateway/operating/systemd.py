"""The units below deploy/systemd as they stand on a machine."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.operating.installation import File, Installation, shipped

UNITS = Path("/etc/systemd/system")
SETTINGS = Path("/etc/kiki")
DATA = Path("/var/lib/kiki")
CACHE = Path("/var/cache/kiki")
USER = "kiki"
_SYSTEM_PATHS = "/usr/local/bin:/usr/bin:/bin"

GATEWAY = ("kiki.socket", "kiki.service", "kiki-sleep.service", "kiki-sleep.timer")
VLLM = ("kiki-vllm.service",)


def installation(program: Path, *, vllm: Path | None = None) -> Installation:
    """The units with drop-ins that name ``program`` and, where it is to run too, vLLM's.

    The unit files are the shipped ones: what differs on this machine stands in the drop-ins, and
    what the operator changes in drop-ins of their own outlives an upgrade.
    """
    units = GATEWAY + (VLLM if vllm else ())
    files = [File(UNITS / unit, shipped(f"systemd/{unit}")) for unit in units]
    files += [_program(unit, program) for unit in ("kiki.service", "kiki-sleep.service")]
    files.append(File(Path("/etc/sysusers.d/kiki.conf"), shipped("systemd/kiki.sysusers")))
    files.append(_mine("kiki.env"))
    if vllm:
        files += [_program("kiki-vllm.service", vllm), _mine("vllm.env")]
    started = ["kiki.socket", "kiki.service", "kiki-sleep.timer", *(VLLM if vllm else ())]
    return Installation(
        files=tuple(files),
        prepare=(
            ("systemd-sysusers", "/etc/sysusers.d/kiki.conf"),
            ("chown", "-R", f"root:{USER}", str(SETTINGS)),
            ("install", "-d", "-o", USER, "-g", USER, "-m", "0700", str(DATA), str(CACHE)),
            ("systemctl", "daemon-reload"),
        ),
        start=(("systemctl", "enable", "--now", *started),),
        end=(
            ("systemctl", "disable", "--now", *started),
            ("systemctl", "daemon-reload"),
        ),
        folders=(DATA, CACHE, SETTINGS),
    )


def running() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def environment(settings: Path = SETTINGS) -> dict[str, str]:
    """What kiki.service gives the gateway: where its folders are, and the operator's kiki.env."""
    given = {
        "HOME": str(DATA),
        "KIKI_DATA_DIR": str(DATA),
        "KIKI_MODELS_DIR": str(CACHE / "models"),
    }
    file = settings / "kiki.env"
    if file.is_file():
        for line in file.read_text().splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith(("#", ";")):
                given[name] = value.strip("\"'") if value[:1] in "\"'" else value
    return given


def status_command(units: tuple[str, ...] = GATEWAY + VLLM) -> tuple[str, ...]:
    """Prints Id, ActiveState, SubState, UnitFileState and ActiveEnterTimestamp of each unit."""
    shown = "--property=Id,LoadState,ActiveState,SubState,UnitFileState,ActiveEnterTimestamp"
    return ("systemctl", "show", shown, *units)


def _program(unit: str, program: Path) -> File:
    paths = os.pathsep.join([str(program.parent), *_SYSTEM_PATHS.split(":")])
    text = f"# Written by kiki service install.\n[Service]\nEnvironment=PATH={paths}\n"
    return File(UNITS / f"{unit}.d" / "10-program.conf", text)


def _mine(name: str) -> File:
    return File(SETTINGS / name, shipped(f"systemd/{name}"), mode=0o640, yours=True)
