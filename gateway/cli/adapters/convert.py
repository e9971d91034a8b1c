"""``kiki adapters convert``."""

from __future__ import annotations

import click

from gateway.settings import load_settings


@click.command("convert")
def command() -> None:
    """Convert the adapters to what the engine reads; done once, and again when they change."""
    from adapters.catalog import Catalog
    from gateway.assets import ensure_models

    settings = load_settings()
    catalog = Catalog(settings.adapters_dir, settings.models_dir)
    for name, path in catalog.ready(ensure_models(settings).base).items():
        click.echo(f"{name}: {path}")
