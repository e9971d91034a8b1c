"""``kiki adapters eval``."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.settings import Settings, load_settings
from kiki.errors import AdapterError, SettingsError
from kiki.names import near

if TYPE_CHECKING:
    from adapters.adapter import Adapter
    from adapters.engines.base import Engine
    from adapters.evaluation.measurement import Measurement
    from adapters.evaluation.perplexity import RowLoss
    from adapters.evaluation.result import Result
    from adapters.evaluation.tasks import Outcome

Progress = Callable[[str, int, int], None]
T = TypeVar("T")

INTERRUPTED = 130  # the shell's code for a command that Ctrl-C ended
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("eval")
@click.argument("adapter")
@click.option("--corpus", type=_FILE,
              help="Question-answer pairs (.jsonl); the held-out part is scored.")  # fmt: skip
@click.option("--task", type=_FILE, help="Tasks to answer, each with what a right answer holds.")
@click.option("--n", "most", type=click.IntRange(1), help="At most so many, drawn by the seed.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--model", type=click.Path(), help="A base model of your own.")
@click.option("--adapters", type=click.Path(), help="A folder of adapters, one folder each.")
@click.option("--write", is_flag=True, help="Put the result into the policy file.")
@click.option("--policy", type=click.Path(path_type=Path), help="The policy file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every answer included.")
def command(
    adapter: str,
    corpus: Path | None,
    task: Path | None,
    most: int | None,
    seed: int,
    model: str | None,
    adapters: str | None,
    write: bool,
    policy: Path | None,
    as_json: bool,
) -> None:
    """Measure ADAPTER against its base, on the same held-out work.

    Without --task, the perplexity of held-out answers is measured (lower is better) on the
    adapter's own corpus, or on --corpus. That needs the training packages: make setup-dev. With
    --task, both answer each task on the engine (temperature 0), and right answers are counted.

    Ctrl-C shows what was measured so far. Exit codes: 0 measured, 1 an error, 2 a wrong call,
    130 interrupted.
    """
    if corpus and task:
        raise click.UsageError("Give --corpus or --task, not both.")
    if corpus and corpus.suffix != ".jsonl":
        raise click.BadParameter(
            f"{corpus} doesn't end in .jsonl: it takes one JSON object a line, with prompt, "
            "answer and source.",
            param_hint="--corpus",
        )
    settings = load_settings(model=model, adapters_dir=adapters)
    file = _policy_file(settings, policy) if write else None
    run = _run_task if task else _run_text
    result = run(settings, adapter, task or corpus, most, seed)
    if result is None:
        click.echo("Interrupted before anything was measured.", err=True)
        sys.exit(INTERRUPTED)
    written = file if result.may_be_written else None
    if written:
        _write(written, result.row)
    if as_json:
        click.echo(json.dumps(result.to_dict(written), ensure_ascii=False, default=str))
    else:
        click.echo(result.to_text(written))
    if result.interrupted:
        sys.exit(INTERRUPTED)


def _run_text(
    settings: Settings, name: str, corpus: Path | None, most: int | None, seed: int
) -> Result | None:
    from adapters.evaluation.perplexity import LONGEST_ROW, row_losses
    from adapters.evaluation.report import Subject, measure_text
    from adapters.evaluation.result import Result
    from adapters.forms import read_lora
    from adapters.training.corpus import CORPORA, read_corpus
    from gateway.cli.progress import counting

    adapter = _find(settings, name)
    file = corpus or CORPORA / f"{name}.jsonl"
    text = read_corpus(file.stem, folder=file.parent)
    held_out = _draw(text.held_out, most, seed)
    base = _readable_base(settings)
    load_base, encode_row = _training()
    model, tokenizer = load_base(base)
    encoded = [encode_row(tokenizer, row, LONGEST_ROW) for row in held_out]
    pairs = [(row, ids) for row, ids in zip(held_out, encoded, strict=True) if ids.teaches]
    losses: list[RowLoss] = []
    with counting() as progress:
        scored = row_losses(model, read_lora(adapter.path), [ids for _, ids in pairs])
        _until_interrupted(scored, losses, progress, len(pairs))
    if not losses:
        return None
    source = _source(file, text.sha256, seed, len(pairs), len(text.held_out))
    subject = Subject(name, settings.adapters_base or base.stem, f"held-out {file.stem}", source)
    evidence = [
        {"prompt": row.prompt} | asdict(loss) for (row, _), loss in zip(pairs, losses, strict=False)
    ]
    return Result(measure_text(subject, losses, seed), len(pairs), evidence)


def _run_task(
    settings: Settings, name: str, task: Path | None, most: int | None, seed: int
) -> Result | None:
    import asyncio

    from adapters.evaluation.report import Subject, measure_tasks
    from adapters.evaluation.result import Result
    from adapters.evaluation.tasks import read_tasks, run_tasks
    from gateway.cli.progress import counting
    from gateway.thinking import strip_thinking

    assert task
    file = read_tasks(task)
    tasks = _draw(file.tasks, most, seed)
    adapter = _find(settings, name)
    engine = _make_engine(settings)
    outcomes: list[Outcome] = []

    async def measure(progress: Progress) -> None:
        try:
            await _start(engine, adapter, progress)
            async with aclosing(run_tasks(engine, name, tasks, strip_thinking)) as answers:
                async for outcome in answers:
                    outcomes.append(outcome)
                    progress("tasks", len(outcomes), len(tasks))
        finally:
            await engine.stop()

    with counting() as progress, suppress(KeyboardInterrupt):
        asyncio.run(measure(progress))
    if not outcomes:
        return None
    source = _source(task, file.sha256, seed, len(tasks), len(file.tasks))
    base_model = settings.adapters_base or engine.capabilities.model
    subject = Subject(name, base_model, f"tasks {file.name}", source)
    return Result(measure_tasks(subject, outcomes), len(tasks), [_told(o) for o in outcomes])


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "prompt": outcome.task.prompt,
        "base_solved": outcome.base_solved,
        "adapter_solved": outcome.adapter_solved,
        "base_answer": outcome.base_answer,
        "adapter_answer": outcome.adapter_answer,
    }


def _until_interrupted(
    work: Iterable[RowLoss], done: list[RowLoss], progress: Progress, total: int
) -> None:
    with suppress(KeyboardInterrupt):
        for item in work:
            done.append(item)
            progress("held-out texts", len(done), total)


def _find(settings: Settings, name: str) -> Adapter:
    from adapters.catalog import Catalog

    catalog = Catalog(settings.adapters_dir, base=settings.adapters_base)
    snapshot = catalog.scan()
    for refusal in snapshot.refused:
        if refusal.name == name:
            raise AdapterError(refusal.reason)
    known = {adapter.name: adapter for adapter in snapshot.adapters}
    if name not in known:
        raise AdapterError(
            f"There is no adapter {name!r} in {catalog.folder}.{near(name, known)}",
            fix="List them with: kiki adapters list",
        )
    return known[name]


def _make_engine(settings: Settings) -> Engine:
    from gateway.assets import ensure_models
    from gateway.engines import Machine, build_engine, choose_engine

    choice = choose_engine(settings, Machine.here())
    return build_engine(settings, choice, ensure_models(settings).base)


def _readable_base(settings: Settings) -> Path:
    """The base as torch can read it here. Raises AdapterError where it is no GGUF file."""
    from gateway.assets import gguf_base

    served = settings.model_path
    if settings.model is not None and (served is None or not served.is_file()):
        raise AdapterError(
            f"Perplexity is measured on a GGUF file, and model is {settings.model!r}.",
            fix="Measure with --task, which runs on any engine, or name a GGUF with --model.",
        )
    return gguf_base(settings)


async def _start(engine: Engine, adapter: Adapter, progress: Progress) -> None:
    progress("starting the engine", 0, 1)
    for refusal in await engine.set_adapters([adapter]):
        raise AdapterError(f"The engine can't serve {refusal.name}: {refusal.reason}")
    await engine.start()
    progress("starting the engine", 1, 1)


def _training() -> tuple[Any, Any]:
    try:
        from adapters.training.trainer import encode_row, load_base
    except ImportError as error:
        raise AdapterError(
            f"Perplexity needs the training packages ({error}).",
            fix="Run make setup-dev, or measure with --task.",
        ) from error
    return load_base, encode_row


def _draw(rows: tuple[T, ...], most: int | None, seed: int) -> tuple[T, ...]:
    """At most ``most`` rows, drawn at random by the seed, in the file's order."""
    if most is None or most >= len(rows):
        return rows
    return tuple(rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), most)))


def _source(file: Path, digest: str, seed: int, used: int, total: int) -> str:
    drawn = f"{used} of {total} by seed {seed}" if used < total else f"all {total}"
    return f"measured here: kiki adapters eval, {file.name} (sha256 {digest[:12]}), {drawn}"


def _policy_file(settings: Settings, named: Path | None) -> Path:
    file = named or settings.policy_file
    if file is None:
        raise SettingsError(
            "--write needs a policy file of your own.",
            fix="Set policy_file, or name one with --policy; it begins as a copy of the shipped.",
        )
    return file


def _write(file: Path, row: Measurement) -> None:
    from adapters.evaluation.table import put_row
    from adapters.policy import SHIPPED_POLICY

    put_row(file, row, start_from=SHIPPED_POLICY)
