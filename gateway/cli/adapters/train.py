"""``kiki adapters train``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.settings import Settings, load_settings

if TYPE_CHECKING:
    from adapters.recipes import Recipe
    from adapters.training import TrainingResult
    from adapters.training.corpus import Corpus

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("train")
@click.argument("domain")
@click.option(
    "--backend",
    type=click.Choice(["peft", "mlx"]),
    help="peft trains on a GGUF base, mlx on anything mlx_lm loads. Without it, the base decides.",
)
@click.option("--base", help="A .gguf file, a model folder, or a name on the hub.")
@click.option("--small", is_flag=True, help="mlx: take the recipe's table for small bases.")
@click.option("--data", type=_FOLDER, help="A folder with train, valid and test.jsonl of chats.")
@click.option(
    "--licence", default="not stated", help="Licence of the text in --data, for the card."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write the adapter to.")
@click.option("--steps", type=click.IntRange(1), help="Iterations.  [default: the recipe's]")
@click.option("--seed", type=click.IntRange(0), help="[default: the recipe's]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--prior-dir", type=_FOLDER, help="Measure angles to the adapters in this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    domain: str,
    backend: str | None,
    base: str | None,
    small: bool,
    data: Path | None,
    licence: str,
    out: Path | None,
    steps: int | None,
    seed: int | None,
    resume: bool,
    prior_dir: Path | None,
    as_json: bool,
) -> None:
    """Train the adapter of DOMAIN by its recipe, check it, and write its card.

    Without --data the text is the recipe's data folder where there is one, else kiki's own corpus.
    An adapter that doesn't beat the base on held-out text, or is sick, is not written. One at a
    time is trained. A run that was stopped goes on with --resume.

    Exits with 1 on an error, and when the adapter was kept but lies at less than 30 degrees to one
    in --prior-dir: measure its win rates. Needs the training packages: make setup-dev.
    """
    from adapters.recipes import check_recipe, load_recipe
    from adapters.training import plan_job, train_adapter, training_bar, training_lock

    settings = load_settings()
    recipe = load_recipe(domain)
    check_recipe(recipe)
    mlx = backend == "mlx" or (backend is None and base is not None and not base.endswith(".gguf"))
    small = small or not mlx
    corpus = _corpus(recipe, data)
    found = _find_base(recipe, base, settings, mlx=mlx)
    job = plan_job(
        _for_base(recipe, found),
        base=found,
        corpus=corpus,
        out=out or Path("trained") / domain,
        small=small,
        steps=steps,
        seed=seed,
        resume=resume,
    )
    click.echo(f"{domain}: {len(corpus.training)} rows from {corpus.path}", err=True)
    try:
        with (
            training_lock(settings.models_dir, domain),
            training_bar(domain, job.hyper.iterations, shown=not as_json) as report,
        ):
            result = train_adapter(
                job,
                backend="mlx" if mlx else "peft",
                licence=licence,
                prior_dir=prior_dir,
                report=report,
            )
    except KeyboardInterrupt:
        reached = f" Go on from {job.work} with --resume." if job.work.is_dir() else ""
        click.echo(f"Stopped.{reached}", err=True)
        raise click.exceptions.Exit(130) from None
    _show(result, as_json=as_json)
    if result.exit_code:
        raise click.exceptions.Exit(result.exit_code)


def _corpus(recipe: Recipe, data: Path | None) -> Corpus:
    from adapters.training import read_chat_folder, read_corpus

    folder = data or Path(recipe.data.format(domain=recipe.domain))
    if folder.is_dir():
        return read_chat_folder(folder, recipe.domain)
    return read_corpus(recipe.domain)


def _find_base(recipe: Recipe, base: str | None, settings: Settings, *, mlx: bool) -> str:
    """A path made absolute, a name on the hub, or the default base of the backend."""
    from gateway.assets import gguf_base

    if base is not None:
        return str(Path(base).absolute()) if Path(base).exists() else base
    return recipe.full.base if mlx else str(gguf_base(settings))


def _for_base(recipe: Recipe, base: str) -> Recipe:
    """The recipe with the base's own name, which the adapter's files will carry."""
    from kiki.assets import BASE_MODEL

    path = Path(base)
    if path.name == BASE_MODEL.file:
        return recipe  # the recipe knows its name on the hub
    name = (path.stem if path.is_file() else path.name) if path.exists() else base
    named = {"base": name}
    tables = {"full": recipe.full, "small": recipe.small}
    return recipe.model_copy(
        update={key: table.model_copy(update=named) for key, table in tables.items()}
    )


def _show(result: TrainingResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(replace(result, angles=dict(result.angles))), default=str))
        return
    click.echo(
        f"{result.domain}: held-out perplexity {result.base_perplexity:.2f} -> "
        f"{result.adapter_perplexity:.2f} in {result.seconds:.0f} s, written to {result.out}"
    )
    for warning in result.warnings:
        click.echo(f"  note: {warning}")
    for prior, degrees in sorted(result.angles.items(), key=lambda pair: pair[1]):
        click.echo(f"  {degrees:5.1f} degrees to {prior}")
    if result.exit_code:
        click.echo("  An angle is under 30 degrees: measure the win rates of that adapter.")
