"""``kiki router``: train and evaluate."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from gateway.settings import load_settings


@click.group("router")
def command() -> None:
    """Train and evaluate the router."""


@command.command("train")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the weights and the card.")
@click.option(
    "--extra",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="A folder of more prompts: *.jsonl with prompt and domain. May be given again.",
)
@click.option(
    "--clinc", type=click.Path(path_type=Path, exists=True), help="CLINC150's JSON: out of scope."
)
@click.option("--seed", type=int, default=0, show_default=True)
def train(out: Path | None, extra: tuple[Path, ...], clinc: Path | None, seed: int) -> None:
    """Train on the packaged prompts, calibrate, and write weights with their card.

    Needs the training packages: make setup-dev.
    """
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting
    from routing.router import PACKAGED
    from routing.training.train import train as train_router

    settings = load_settings()
    embedder = load_embedder(settings)
    with counting() as progress:
        train_router(
            embedder,
            output=out or PACKAGED,
            extra=extra,
            clinc=clinc,
            cache=settings.models_dir / "router-vectors",
            seed=seed,
            progress=lambda done, total: progress("prompts embedded", done, total),
        )
    click.echo(f"Weights and card written to {out or PACKAGED}")


@command.command("eval")
@click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    required=True,
    help="JSON lines: prompt, and domain or domains ([] is out of scope). May be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(files: tuple[Path, ...], as_json: bool) -> None:
    """Measure the router on prompts with known domains."""
    from gateway.assets import load_embedder
    from routing.domains import load_domains
    from routing.router import Router
    from routing.training.evaluate import evaluate as evaluate_rows
    from routing.training.rows import read_file

    settings = load_settings()
    table = load_domains()
    rows = [row for file in files for row in read_file(file, table)]
    embedder = load_embedder(settings)
    router = Router.load(table=table, embedding_id=embedder.id)
    vectors = embedder.embed([row.prompt for row in rows])
    report = evaluate_rows(rows, vectors, router)
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    for name in ("n", "top1", "top3", "ece", "macro_f1", "oos_auroc"):
        value = getattr(report, name)
        click.echo(f"{name:<10} {'-' if value is None else f'{value:.4g}'}")
