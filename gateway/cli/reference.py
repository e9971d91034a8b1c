"""The pages of docs/ that are made from the code: settings, and the command line.

``python -m gateway.cli.reference`` writes both; a test holds them against the code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from gateway.cli import cli
from gateway.settings import ENV_PREFIX, Settings

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = ("settings.md", "cli.md")
_MADE = "<!-- Made by python -m gateway.cli.reference; edit the code instead. -->"


def settings_page() -> str:
    """Every setting with its meaning, values and default, by subject."""
    parts = [
        "# Settings",
        _MADE,
        "In `kiki.toml` in the working folder (or the file that `KIKI_CONFIG` names), or in "
        f"the environment, in capitals behind `{ENV_PREFIX}`, which wins; what the command "
        "line says wins over both. A wrong value stops the start with exit code 78 and a line "
        "that names the setting, its value and the fix. `kiki config` prints all with their "
        "values here and where those come from.",
    ]
    for title, names in _subjects():
        rows = [_setting_row(name, Settings.model_fields[name]) for name in names]
        table = ["| setting | meaning | values | default |", "|---|---|---|---|", *rows]
        parts += [f"## {title}", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def cli_page() -> str:
    """Every command with its help, as the terminal shows it."""
    width: dict[str, Any] = {"max_content_width": 100, "terminal_width": 100}
    context = click.Context(cli, info_name="kiki", **width, **cli.context_settings)
    parts = ["# The command line", _MADE]
    for command, inner in _commands(cli, context):
        parts += [f"## `{inner.command_path}`", f"```text\n{command.get_help(inner)}\n```"]
    return "\n\n".join(parts) + "\n"


def _subjects() -> Iterator[tuple[str, list[str]]]:
    """The classes that the settings are put together from, each with its own fields."""
    for kind in (Settings, *Settings.__mro__[1:]):
        names = [
            name for name in vars(kind).get("__annotations__", {}) if name in Settings.model_fields
        ]
        if names and issubclass(kind, BaseSettings):
            words = re.findall("[A-Z][a-z]+", kind.__name__.removesuffix("Settings"))
            yield " ".join(words).capitalize() or "General", names


def _setting_row(name: str, field: FieldInfo) -> str:
    cells = [f"`{name}`", field.description or "", _values(field), _default(field)]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _values(field: FieldInfo) -> str:
    choices = list(_choices(field.annotation))
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = {kind: _limit(field, kind) for kind in ("ge", "gt", "le", "lt")}
    low = f"from {limits['ge']}" if limits["ge"] is not None else ""
    low = low or (f"over {limits['gt']}" if limits["gt"] is not None else "")
    high = f"to {limits['le']}" if limits["le"] is not None else ""
    high = high or (f"under {limits['lt']}" if limits["lt"] is not None else "")
    return " ".join(filter(None, (low, high)))


def _choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif annotation is bool:
        yield from ("true", "false")
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(member.value) for member in annotation)
    else:
        for part in get_args(annotation):
            if get_origin(part) is Literal:
                yield from map(str, get_args(part))


def _limit(field: FieldInfo, kind: str) -> object:
    found = [
        getattr(rule, kind) for rule in field.metadata if getattr(rule, kind, None) is not None
    ]
    return found[0] if found else None


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the system's place"
    default = field.default
    if default is None:
        return "unset"
    if isinstance(default, tuple):
        return f"`{json.dumps(list(default))}`" if default else "none"
    return f"`{json.dumps(default, default=str)}`"


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                made = click.Context(inner, parent=context, info_name=name)
                yield from _commands(inner, made)


def main() -> None:
    """Write both pages."""
    for name, page in zip(PAGES, (settings_page(), cli_page()), strict=True):
        (DOCS / name).write_text(page)


if __name__ == "__main__":
    main()
