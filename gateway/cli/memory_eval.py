"""``kiki memory eval``: the memory's decisions and recall, measured."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gateway.settings import Settings, load_settings
from kiki.errors import EngineUnavailableError

UNLIMITED_S = 600.0
START_S = 300.0


@click.command("eval")
@click.option(
    "--cerebellum",
    metavar="MODEL",
    help="Measure a model beside the rules: the path of a GGUF, or the URL of an "
    "OpenAI-compatible server.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(0),
    help="The model's time a decision; 0 gives it all it needs. Default: cerebellum_timeout_ms.",
)
@click.option(
    "--locomo",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure recall instead, on a file of LoCoMo conversations.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    cerebellum: str | None, timeout_ms: int | None, locomo: Path | None, as_json: bool
) -> None:
    """Measure what is kept of a turn and what it does to what was known, case by case."""
    if locomo is not None:
        if cerebellum is not None or timeout_ms is not None:
            raise click.UsageError("--locomo measures recall, which asks no model.")
        _measure_recall(locomo, as_json=as_json)
    else:
        _measure_decisions(cerebellum, timeout_ms, as_json=as_json)


def _measure_recall(path: Path, *, as_json: bool) -> None:
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting
    from memory.locomo import as_text, evaluate, load

    dialogues = load(path)
    embedder = load_embedder(load_settings())
    with tempfile.TemporaryDirectory(prefix="kiki-locomo-") as folder, counting() as progress:
        report = evaluate(
            dialogues,
            Path(folder),
            embedding_id=embedder.id,
            embed=embedder.embed,
            progress=progress,
        )
    click.echo(json.dumps(report) if as_json else as_text(report))


def _measure_decisions(cerebellum: str | None, timeout_ms: int | None, *, as_json: bool) -> None:
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting
    from memory.cerebellum import Cerebellum
    from memory.evaluation import as_text, evaluate

    if cerebellum in ("rules", "engine"):
        raise click.BadParameter("the path of a GGUF or a URL.", param_hint="--cerebellum")
    settings = load_settings(cerebellum=cerebellum)
    embedder = load_embedder(settings)
    with counting() as progress:
        report = {"rules": evaluate(Cerebellum(), embedder.embed, progress)}
        if cerebellum:
            budget = settings.cerebellum_timeout_ms if timeout_ms is None else timeout_ms
            seconds = budget / 1000 or UNLIMITED_S
            report["model"] = asyncio.run(
                _with_model(
                    settings,
                    seconds,
                    lambda made: evaluate(
                        made, embedder.embed, lambda name, *rest: progress(f"{name}, model", *rest)
                    ),
                )
            ) | {"model": Path(cerebellum).name, "timeout_ms": budget}
    click.echo(json.dumps(report) if as_json else as_text(report))


async def _with_model(
    settings: Settings, timeout_s: float, measure: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    from gateway.asking import asking
    from memory.cerebellum import Cerebellum

    async with asking(settings, None) as ask:
        made = Cerebellum(ask, timeout_s=timeout_s)
        if not await asyncio.to_thread(made.warm_up, START_S):
            raise EngineUnavailableError(f"{settings.cerebellum} doesn't answer.")
        return await asyncio.to_thread(measure, made)
