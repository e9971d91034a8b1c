"""``kiki doctor``: check models, stores, port and versions, and say what to do."""

from __future__ import annotations

import json
import sys

import click

from gateway.settings import load_settings


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Check what the gateway needs; exit code 1 when something is wrong."""
    from dataclasses import asdict

    from gateway.doctor import examine

    checks = examine(load_settings())
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        for check in checks:
            mark = {"ok": "ok  ", "note": "note", "wrong": "WRONG"}[check.state]
            click.echo(f"{mark:<6}{check.name:<20}{check.detail}")
            if check.fix:
                click.echo(f"{'':<26}-> {check.fix}")
    if any(check.state == "wrong" for check in checks):
        sys.exit(1)
