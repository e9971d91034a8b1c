"""``kiki adapters list``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from gateway.settings import load_settings


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show the adapters with their held-out perplexity: the base's, then their own."""
    from adapters.catalog import Catalog

    settings = load_settings()
    catalog = Catalog(settings.adapters_dir, settings.models_dir)
    adapters = catalog.adapters()
    if as_json:
        rows = [asdict(adapter) | {"folder": str(adapter.folder)} for adapter in adapters]
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{'name':<12} {'rank':>4} {'alpha':>5} {'MB':>5} {'base':>8} {'adapter':>8}")
    for adapter in adapters:
        base, own = adapter.base_perplexity, adapter.adapter_perplexity
        click.echo(
            f"{adapter.name:<12} {adapter.rank:>4} {adapter.alpha:>5.0f} "
            f"{adapter.bytes / 1e6:>5.1f} {_number(base):>8} {_number(own):>8}"
        )
    if not adapters:
        click.echo(f"No adapter in {catalog.folder}; train one with: kiki adapters train DOMAIN")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
