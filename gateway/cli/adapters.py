"""``kiki adapters``: list and train."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from gateway.settings import load_settings


@click.group("adapters")
def command() -> None:
    """List, train and convert adapters."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_adapters(as_json: bool) -> None:
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


@command.command("convert")
def convert() -> None:
    """Convert the adapters to what the engine reads; done once, and again when they change."""
    from adapters.catalog import Catalog
    from gateway.assets import ensure_models

    settings = load_settings()
    catalog = Catalog(settings.adapters_dir, settings.models_dir)
    for name, path in catalog.ready(ensure_models(settings).base).items():
        click.echo(f"{name}: {path}")


@command.command("train")
@click.argument("domain")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write the adapter to.")
@click.option("--steps", type=click.IntRange(1), default=90, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(domain: str, out: Path | None, steps: int, seed: int, as_json: bool) -> None:
    """Train the adapter of DOMAIN on its corpus, check its conversion, and write its card.

    An adapter that doesn't beat the base on held-out text is not written. Needs the training
    packages: make setup-dev.
    """
    from adapters.training import train_adapter
    from gateway.assets import ensure_models

    settings = load_settings()
    result = train_adapter(
        domain,
        out=out or Path("trained") / domain,
        base_gguf=ensure_models(settings).base,
        steps=steps,
        seed=seed,
        progress=not as_json,
    )
    if as_json:
        click.echo(json.dumps(asdict(result), default=str))
        return
    click.echo(
        f"{result.domain}: held-out perplexity {result.base_perplexity:.2f} -> "
        f"{result.adapter_perplexity:.2f} in {result.seconds:.0f} s, written to {result.out}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
