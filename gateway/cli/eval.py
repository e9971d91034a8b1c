"""``kiki eval``: does the whole pipeline answer better than its base?"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from gateway.evaluation.arms import ARMS, FULL, RAW
from gateway.settings import load_settings
from kiki.errors import EvaluationError, KikiError

if TYPE_CHECKING:
    from gateway.assets import ModelFiles
    from gateway.evaluation.question import Split
    from gateway.evaluation.records import RunFolder
    from gateway.evaluation.running import Chosen, Plan
    from gateway.settings import Settings

INTERRUPTED = 130  # the shell's code for a command that Ctrl-C ended
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_RUN = click.Path(path_type=Path, file_okay=False)


@click.group("eval")
def command() -> None:
    """Measure answers, not speed."""


def _json_object(
    context: click.Context, option: click.Parameter, value: str | None
) -> dict[str, Any]:
    try:
        found = json.loads(value or "{}")
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"isn't JSON: {error}") from error
    if not isinstance(found, dict):
        raise click.BadParameter('give an object, as {"negotiate": true}')
    return found


def _arms(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    named = [name.strip() for name in value.split(",")]
    unknown = [name for name in named if name not in ARMS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of: {', '.join(ARMS)}")
    if not {RAW, FULL} <= set(named):
        raise click.BadParameter("raw and full are what is compared; name both")
    return tuple(arm for arm in ARMS if arm in named)


@command.group("cognitive", invoke_without_command=True)
@click.option("--humaneval", type=_FILE, help="HumanEval, JSON lines as OpenAI publishes them.")
@click.option("--gsm8k", type=_FILE, help="GSM8K, JSON lines with question and answer.")
@click.option("--bbq", type=_FOLDER, help="A folder of BBQ's JSON lines, a file a category.")
@click.option(
    "--out",
    type=_RUN,
    default=Path("kiki-eval"),
    show_default=True,
    help="Folder of the run: what it holds already is not asked again.",
)
@click.option("--model", type=click.Path(), help="A base model of your own.")
@click.option("--adapters", type=click.Path(), help="A folder of adapters, one folder each.")
@click.option("--arms", default=",".join(ARMS), show_default=True, callback=_arms)
@click.option(
    "--kiki",
    "kiki",
    callback=_json_object,
    metavar="JSON",
    help='What full\'s requests say under kiki, as {"negotiate": true}.',
)
@click.option(
    "--split",
    type=click.Choice(["even", "odd", "all"]),
    default="all",
    show_default=True,
    help="Half of each benchmark: tune on one, prove on the other.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Questions of each benchmark, drawn by the "
    "seed; a later run with more goes on from these.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--max-tokens", type=click.IntRange(1), help="Of an answer; default: the benchmark's own."
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    help="Questions at a time; default: engine_slots. 1 repeats exactly.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def cognitive(
    context: click.Context,
    humaneval: Path | None,
    gsm8k: Path | None,
    bbq: Path | None,
    out: Path,
    model: str | None,
    adapters: str | None,
    arms: tuple[str, ...],
    kiki: dict[str, Any],
    split: Split,
    limit: int | None,
    seed: int,
    max_tokens: int | None,
    parallel: int | None,
    as_json: bool,
) -> None:
    """The same base with the whole pipeline and without, question by question.

    raw is the base alone; full is the pipeline as a request gets it (memory off). Beside them, at
    as many tokens a question as full spent: self-consistency (the majority of the base's answers)
    and best-of-n (the base chooses among its own).

    Each question is kept when it is answered. Ctrl-C shows what there is, and the same command
    goes on. Code that the model writes for HumanEval runs in a process with limits and, where the
    system permits, without network and without a file to change.

    Exit codes: 0 measured, 1 an error, 2 a wrong call, 130 interrupted.
    """
    if context.invoked_subcommand is not None:
        return
    named = {"bbq": bbq, "gsm8k": gsm8k, "humaneval": humaneval}
    if not any(named.values()):
        raise click.UsageError("Name a benchmark: --bbq, --gsm8k or --humaneval.")
    from gateway.evaluation.pipeline_arms import kiki_options
    from gateway.evaluation.running import Plan

    chosen = _chosen(named, split, limit, seed, max_tokens)
    plan = Plan(chosen, arms, split, seed, kiki_options(kiki))
    with tempfile.TemporaryDirectory(prefix="kiki-eval-") as memory:
        settings = load_settings(
            model=model,
            adapters_dir=adapters,
            data_dir=memory,
            adapters_watch=False,
            cerebellum="rules",
        )
        finished = _run(settings, plan, out, parallel)
    _report(out, as_json)
    if not finished:
        click.echo("Interrupted: the same command goes on.", err=True)
        sys.exit(INTERRUPTED)


@cognitive.command("show")
@click.argument("run", type=_RUN)
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(run: Path, id: str, as_json: bool) -> None:
    """One question of a RUN: the prompt, every arm's answer, what was extracted and decided."""
    from gateway.evaluation.page import as_text
    from gateway.evaluation.records import RunFolder

    record = RunFolder.open(run).record(id)
    click.echo(json.dumps(record, ensure_ascii=False) if as_json else as_text(record))


@cognitive.command("report")
@click.argument("run", type=_RUN)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(run: Path, as_json: bool) -> None:
    """The numbers of a RUN so far; its page is written anew."""
    _report(run, as_json)


def _chosen(
    named: dict[str, Path | None],
    split: Split,
    limit: int | None,
    seed: int,
    max_tokens: int | None,
) -> list[Chosen]:
    from gateway.evaluation.bbq import Bbq
    from gateway.evaluation.gsm8k import Gsm8k
    from gateway.evaluation.humaneval import HumanEval
    from gateway.evaluation.question import Benchmark, choose, digest
    from gateway.evaluation.running import Chosen
    from gateway.evaluation.sandbox import require_sandbox

    if named["humaneval"]:
        guards = require_sandbox()
        click.echo(f"Sandbox: network {guards.network}, files {guards.files}.", err=True)
    benchmarks = cast("Sequence[Benchmark]", (Bbq(), Gsm8k(), HumanEval()))
    return [
        Chosen(
            benchmark,
            choose(benchmark.read(path), split, limit, seed),
            digest(path),
            max_tokens or benchmark.max_tokens,
        )
        for benchmark in benchmarks
        if (path := named[benchmark.name])
    ]


def _run(settings: Settings, plan: Plan, out: Path, parallel: int | None) -> bool:
    """Ask what is left; False where Ctrl-C ended it. Raises KikiError, the rest being kept."""
    from gateway.assets import ensure_models
    from gateway.cli.progress import counting, pulling

    with pulling() as pulled:
        files = ensure_models(settings, pulled)
    with counting() as progress:
        try:
            asyncio.run(_measure(settings, files, plan, out, parallel, progress))
        except KeyboardInterrupt:
            return False
        except EvaluationError:
            raise
        except KikiError as error:
            raise EvaluationError(
                f"Stopped: {error.message}", fix=f"{out} keeps what was answered; run it again."
            ) from error
    return True


async def _measure(
    settings: Settings,
    files: ModelFiles,
    plan: Plan,
    out: Path,
    parallel: int | None,
    progress: Callable[[str, int, int], None],
) -> None:
    from gateway.evaluation.records import RunFolder
    from gateway.evaluation.running import ask_all, manifest, started

    progress("starting the engine", 0, 1)
    async with started(settings, files) as services:
        progress("starting the engine", 1, 1)
        folder = RunFolder.create(out, manifest(plan, services, files))
        with folder.lock():
            folder.mend()
            at_once = parallel or services.engine.capabilities.slots
            await ask_all(services, plan, folder, parallel=at_once, progress=progress)


def _report(run: Path, as_json: bool) -> None:
    from gateway.evaluation.page import page
    from gateway.evaluation.records import RunFolder
    from gateway.evaluation.report import as_text, summary

    folder: RunFolder = RunFolder.open(run)
    records = folder.records()
    numbers = summary(records)
    (run / "report.html").write_text(page(folder.manifest, numbers, records), encoding="utf-8")
    result = {"manifest": folder.manifest, "benchmarks": numbers}
    (run / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    click.echo(as_text(numbers) if numbers else "Nothing was answered yet.")
    click.echo(f"Page: {run / 'report.html'}   A question: kiki eval cognitive show {run} ID")
