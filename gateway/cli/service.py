"""``kiki service``: kiki as a service of this machine, under systemd or launchd."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kiki.errors import SettingsError

if TYPE_CHECKING:
    from gateway.operating.installation import Command, Installation
    from gateway.operating.status import UnitStatus

_MANAGERS = click.Choice(["systemd", "launchd"])


@click.group("service")
def command() -> None:
    """Install kiki as a service of this machine, see how it is, take it out."""


@command.command("install")
@click.option("--manager", type=_MANAGERS, help="Default: what this system has.")
@click.option(
    "--vllm",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="systemd: also run this vLLM program beside the gateway.",
)
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write below this folder and start nothing: for an image or a package.",
)
@click.option("--no-start", is_flag=True, help="Write the files and start nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be written and run.")
def install(
    manager: str | None, vllm: Path | None, root: Path | None, no_start: bool, dry_run: bool
) -> None:
    """Write the unit files, make a first API key, start the gateway.

    Your own settings (/etc/kiki/kiki.env, or kiki.toml on a Mac) are made once and kept from then
    on; run it again after an upgrade.
    """
    from gateway.operating.installation import write

    manager = manager or _found()
    made = _installation(manager, vllm)
    if dry_run:
        for file in made.files:
            click.echo(f"write  {file.path}{'  (once; then yours)' if file.yours else ''}")
        for line in (*made.prepare, *made.start):
            click.echo(f"run    {' '.join(line)}")
        return
    if manager == "systemd" and not root:
        _refuse_hidden(_program())
    for file, change in write(made.files, root or Path("/")):
        click.echo(f"{change:<10}{file.path}")
    if root or no_start:
        _say_what_starts(made, manager)
        return
    _run(made.prepare)
    if manager == "systemd":
        _first_keys()
    _run(made.start)


@command.command("status")
@click.option("--manager", type=_MANAGERS, help="Default: what this system has.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(manager: str | None, as_json: bool) -> None:
    """How the services are; exit code 1 where the gateway doesn't run."""
    from dataclasses import asdict

    from gateway.operating.status import launchd_status, systemd_status

    manager = manager or _found()
    units = systemd_status() if manager == "systemd" else launchd_status(os.getuid())
    if as_json:
        click.echo(json.dumps([asdict(unit) for unit in units], indent=2))
    else:
        for unit in units:
            click.echo(_told(unit))
    if not any(unit.runs for unit in units if unit.name in ("kiki.service", "ai.kiki.gateway")):
        sys.exit(1)


@command.command("uninstall")
@click.option("--manager", type=_MANAGERS, help="Default: what this system has.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="As for install.")
def uninstall(manager: str | None, root: Path | None) -> None:
    """Stop the services and remove their files; settings, keys and data stay."""
    from gateway.operating.installation import below, remove

    manager = manager or _found()
    made = _installation(manager, vllm=_installed_vllm(root or Path("/")))
    if not root:
        _run(made.end[:1])
    for file, change in remove(made.files, root or Path("/")):
        click.echo(f"{change:<10}{file.path}")
    if not root:
        _run(made.end[1:])
    left = [below(root or Path("/"), folder) for folder in made.folders]
    there = [str(folder) for folder in left if folder.exists()]
    if there:
        click.echo(f"Left alone; delete them if nobody needs them: {' '.join(there)}")


@command.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run a kiki command as the service's user, with its settings; needs root.

    For example: sudo kiki service run keys create anna
    """
    _as_service(*arguments)


def _say_what_starts(made: Installation, manager: str) -> None:
    from gateway.access.keys import SCOPES

    lines = [" ".join(line) for line in (*made.prepare, *made.start)]
    if manager == "systemd":
        keys = (f"first --scope {','.join(SCOPES)}", "sleep --scope admin  # into sleep.env")
        lines[len(made.prepare) : 0] = [f"kiki service run keys create {key}" for key in keys]
    click.echo("Start it, as root, with:" if manager == "systemd" else "Start it with:")
    for line in lines:
        click.echo(f"  {line}")


def _installation(manager: str, vllm: Path | None = None) -> Installation:
    from gateway.operating import launchd, systemd

    if manager == "systemd":
        return systemd.installation(_program(), vllm=vllm)
    if vllm:
        raise SettingsError("--vllm is for systemd.", fix="A Mac runs MLX; leave it out.")
    return launchd.installation(_program(), home=Path.home(), user=os.getuid())


def _found() -> str:
    from gateway.operating.systemd import running

    if platform.system() == "Darwin":
        return "launchd"
    if running():
        return "systemd"
    raise SettingsError(
        "This machine is run by neither systemd nor launchd.",
        fix="Write the files for another one with --manager systemd --root FOLDER, or run "
        "kiki serve under what this machine has.",
    )


def _program() -> Path:
    """The ``kiki`` that runs now, as the service will call it."""
    beside = Path(sys.executable).with_name("kiki")
    if beside.is_file():
        return beside
    found = shutil.which("kiki")
    if not found:
        raise SettingsError(
            f"There is no program kiki beside {sys.executable}.", fix="Install kiki with pip."
        )
    return Path(found).absolute()


def _installed_vllm(root: Path) -> Path | None:
    """Where a unit of vLLM's is installed: the path of that unit, else None."""
    from gateway.operating.installation import below
    from gateway.operating.systemd import UNITS, VLLM

    unit = below(root, UNITS / VLLM[0])
    return unit if unit.exists() else None


def _refuse_hidden(program: Path) -> None:
    hidden = ("/home", "/root", "/tmp", "/var/tmp")  # ProtectHome and PrivateTmp
    if str(program.resolve()).startswith(tuple(f"{folder}/" for folder in hidden)):
        raise SettingsError(
            f"The service can't see {program}: home and temporary folders are hidden from it.",
            fix="Put kiki elsewhere, for example into /opt/kiki, and install from there.",
        )


def _first_keys() -> None:
    """A key for the operator, shown once, and one for the timer, where there are none yet."""
    from gateway.access.key_file import read_keys
    from gateway.access.keys import SCOPES
    from gateway.operating.installation import File, write
    from gateway.operating.systemd import DATA, SETTINGS

    keys = read_keys(DATA / "keys.toml")
    if not keys:
        click.echo("The first API key; it is shown once:")
        _as_service("keys", "create", "first", "--scope", ",".join(SCOPES))
    if "sleep" not in keys:
        made = _as_service("keys", "create", "sleep", "--scope", "admin", "--json", quiet=True)
        text = f"KIKI_API_KEY={json.loads(made)['key']}\n"
        for file, change in write([File(SETTINGS / "sleep.env", text, mode=0o600)], Path("/")):
            click.echo(f"{change:<10}{file.path}")


def _as_service(*arguments: str, quiet: bool = False) -> str:
    """Run a kiki command as the service's user, with its folders and settings; its output, where
    it is ``quiet``. A command that fails ends this one with its exit code."""
    from gateway.operating.systemd import USER, environment

    try:
        ended = subprocess.run(
            [str(_program()), *arguments],
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath)} | environment(),
            user=USER,
            group=USER,
            cwd="/",
            stdout=subprocess.PIPE if quiet else None,
            text=True,
        )
    except (LookupError, PermissionError) as error:
        raise SettingsError(
            f"A command can't be run as the user {USER}: {error}.",
            fix="Install the service first, and run this as root: sudo.",
        ) from error
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout or ""


def _run(lines: tuple[Command, ...]) -> None:
    for line in lines:
        click.echo(f"{'run':<10}{' '.join(line)}")
        try:
            ended = subprocess.run(line, check=False, capture_output=True, text=True)
        except OSError as error:
            raise SettingsError(f"{line[0]} can't be run: {error.strerror}.") from error
        if ended.returncode:
            raise SettingsError(
                f"{' '.join(line)} ended with code {ended.returncode}: {ended.stderr.strip()}",
                fix="Mend that and run the same command again.",
            )


def _told(unit: UnitStatus) -> str:
    since = f" since {unit.since}" if unit.since else ""
    return f"{unit.name:<22}{unit.state}{since}"
