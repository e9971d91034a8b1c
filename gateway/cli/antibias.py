"""``kiki antibias``: train the detector."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group("antibias")
def command() -> None:
    """Train the bias detector."""


@command.command("train")
@click.argument("pairs", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the weights and the card.")
@click.option(
    "--neutral",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="JSON lines with texts that carry no bias. May be given again.",
)
@click.option("--seed", type=int, default=0, show_default=True)
def train(pairs: Path, out: Path | None, neutral: tuple[Path, ...], seed: int) -> None:
    """Train on PAIRS: JSON lines with biased_prompt, fair_prompt and bias_type.

    Needs the training packages: make setup-dev.
    """
    from antibias.detector import WEIGHTS
    from antibias.training import train as train_detector

    card = train_detector(pairs, out or WEIGHTS, neutral, seed=seed)
    click.echo(json.dumps(card["metrics"], indent=2))
