"""``kiki config``: every setting, its value, and where that comes from."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from gateway.settings import ENV_PREFIX, Settings, load_settings, settings_file


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Print every setting as a kiki.toml, with its meaning and where its value comes from."""
    settings = load_settings()
    values = settings.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    file = settings_file()
    click.echo(f"# File in use: {file or 'none; kiki.toml here would be read'}")
    click.echo(f"# Each setting may also be given as {ENV_PREFIX}NAME in the environment.")
    for name, field in Settings.model_fields.items():
        click.echo(f"\n# {field.description}{_origin(name, settings)}")
        click.echo(_line(name, values[name]))


def _origin(name: str, settings: Settings) -> str:
    if ENV_PREFIX + name.upper() in os.environ:
        return f" [from {ENV_PREFIX}{name.upper()}]"
    return f" [from {settings_file()}]" if name in settings.model_fields_set else ""


def _line(name: str, value: Any) -> str:
    return f"# {name} =" if value is None else f"{name} = {json.dumps(value)}"
