"""``kiki adapters list``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from gateway.settings import load_settings


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show the adapters with their held-out perplexity, and those that are left out.

    The perplexities are the base's and the adapter's own, on the adapter's held-out text.
    """
    from adapters.catalog import Catalog

    settings = load_settings()
    catalog = Catalog(settings.adapters_dir, base=settings.adapters_base)
    snapshot = catalog.scan()
    if as_json:
        rows = {
            "folder": str(catalog.folder),
            "adapters": [_row(adapter) for adapter in snapshot.adapters],
            "refused": [_row(refusal) for refusal in snapshot.refused],
        }
        click.echo(json.dumps(rows, indent=2))
        return
    titles = ("name", "form", "rank", "alpha", "MB", "base", "adapter")
    click.echo("{:<20} {:<5} {:>4} {:>5} {:>7} {:>8} {:>8}".format(*titles))
    for adapter in snapshot.adapters:
        base, own = adapter.base_perplexity, adapter.adapter_perplexity
        click.echo(
            f"{adapter.name:<20} {adapter.form:<5} {adapter.rank:>4} {adapter.alpha:>5.0f} "
            f"{adapter.bytes / 1e6:>7.1f} {_number(base):>8} {_number(own):>8}"
        )
    for refusal in snapshot.refused:
        click.echo(f"left out: {refusal.name}: {refusal.reason}")
    if not snapshot.adapters:
        click.echo(f"No adapter in {catalog.folder}; train one with: kiki adapters train DOMAIN")


def _row(item: Any) -> dict[str, Any]:
    return asdict(item) | {"path": str(item.path)}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
