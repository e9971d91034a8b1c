"""``kiki adapters import``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from gateway.settings import Settings, load_settings
from kiki.errors import AdapterError


@click.command("import")
@click.argument("source")
@click.option("--name", help="What to call it here.  [default: its own name]")
@click.option("--adapters", type=click.Path(file_okay=False, path_type=Path),
              help="The folder of adapters.  [default: the setting adapters_dir]")  # fmt: skip
@click.option("--revision", help="A branch, tag or commit of the hub's repository.")
@click.option("--base", help="The model it must fit.  [default: the one in the settings]")
@click.option("--force", is_flag=True, help="Replace an adapter of that name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    source: str,
    name: str | None,
    adapters: Path | None,
    revision: str | None,
    base: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Bring in an adapter that was published elsewhere.

    SOURCE is a folder, a .gguf or .zip file, or a repository on the hub: owner/name, or
    owner/name/folder where it holds several (without the folder they are listed). It is taken
    when it is healthy and fits the base; pickled weights are refused, as reading them runs code.

    \b
    Example:
      kiki adapters import clemsail/micro-kiki-v35b/chat-fr --base Qwen/Qwen3.6-35B-A3B

    Exits with 1 when nothing was brought in.
    """
    from adapters.imports import import_adapter, open_source

    settings = load_settings()
    folder = adapters or settings.adapters_dir
    if folder is None:
        raise AdapterError(
            "There is no folder of adapters of your own yet.",
            fix="Name one with --adapters FOLDER, and set adapters_dir to it to serve from there.",
        )
    base_gguf = _base_gguf(settings)
    brought = import_adapter(
        open_source(source, revision),
        name=name,
        folder=folder,
        base=base or settings.base or settings.model or base_gguf.name,
        base_gguf=base_gguf if base_gguf.is_file() else None,
        force=force,
    )
    if as_json:
        click.echo(json.dumps(asdict(brought), default=str, indent=2))
        return
    at = f" at {brought.revision[:12]}" if brought.revision else ""
    click.echo(f"{brought.name}: from {brought.source}{at} to {brought.path}")
    for warning in brought.warnings:
        click.echo(f"  note: {warning}")


def _base_gguf(settings: Settings) -> Path:
    """The GGUF base of the settings, or the small one; nothing is fetched for it."""
    from kiki.assets import BASE_MODEL

    served = settings.model_path
    if served is not None and served.suffix == ".gguf":
        return served
    return settings.models_dir / BASE_MODEL.file
