"""``kiki adapters train``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from gateway.settings import load_settings


@click.command("train")
@click.argument("domain")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write the adapter to.")
@click.option("--steps", type=click.IntRange(1), default=90, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(domain: str, out: Path | None, steps: int, seed: int, as_json: bool) -> None:
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
