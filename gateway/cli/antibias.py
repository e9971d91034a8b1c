"""``kiki antibias``: train and measure the detector, find the neurons that know bias."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.settings import load_settings
from kiki.errors import EngineError, EvaluationError

if TYPE_CHECKING:
    from antibias.prompt import Embed

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
NEUTRAL_HELP = "JSON lines with texts that carry no bias (prompt, answer). May be given again."


@click.group("antibias")
def command() -> None:
    """Train and measure the bias detector; probe a model."""


@command.command("train")
@click.argument("pairs", type=FILE)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the weights and the card.")
@click.option("--neutral", type=FILE, multiple=True, help=NEUTRAL_HELP)
@click.option("--seed", type=int, default=0, show_default=True)
def train(pairs: Path, out: Path | None, neutral: tuple[Path, ...], seed: int) -> None:
    """Train on PAIRS: JSON lines with biased_prompt, fair_prompt and bias_type.

    Needs the training packages: make setup-dev.
    """
    from antibias.detector import WEIGHTS
    from antibias.training import train as train_detector

    with _embedding() as (embed, embedding_id):
        card = train_detector(pairs, out or WEIGHTS, embed, embedding_id, neutral, seed=seed)
    click.echo(json.dumps(card["metrics"], indent=2))


@command.command("eval")
@click.argument("pairs", type=FILE)
@click.option("--neutral", type=FILE, multiple=True, help=NEUTRAL_HELP)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(pairs: Path, neutral: tuple[Path, ...], seed: int, as_json: bool) -> None:
    """Measure the detector on PAIRS, five times trained anew without a fifth of them.

    And the packaged one on the sentences outside all training that come with kiki. Minutes: each
    text is embedded once, and kept. Needs the training packages: make setup-dev.
    """
    from antibias.detector import default_detector
    from antibias.measure import measure_outside
    from antibias.training import cross_validate

    with _embedding() as (embed, embedding_id):
        detector = default_detector()
        detector.check(embedding_id)
        measured = cross_validate(pairs, embed, neutral, seed=seed)
        measured["outside"] = measure_outside(detector, embed)
    if as_json:
        click.echo(json.dumps(measured, indent=2))
        return
    for name, metrics in measured.items():
        click.echo("\n".join(_table(name, metrics)))


@command.command("probe")
@click.option("--model", required=True, help="A folder that MLX loads, or a name on the hub.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write, for the setting knowbias_probe.",
)
@click.option(
    "--questions",
    type=FILE,
    help="JSON lines with question and answer (yes or no); default: the 75 that come with kiki.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(model: str, out: Path, questions: Path | None, as_json: bool) -> None:
    """Find the neurons that carry a model's answers to questions about bias.

    By integrated gradients (KnowBias, arXiv 2601.21864); nothing is trained. Needs kiki's mlx
    extra. Minutes on Apple silicon, for a small model on a CPU about an hour.
    """
    rows = _questions(questions)
    from gateway.bench import fast_blas
    from gateway.cli.progress import counting

    fast_blas.load()
    try:
        from adapters.engines.mlx.attribution import Question, find_neurons
        from adapters.engines.mlx.config import MlxConfig
        from adapters.engines.mlx.model import load_base
        from adapters.engines.mlx.probe import Probe, fingerprint, write_probe
    except ImportError as error:
        raise EngineError(
            f"MLX can't be imported: {error}.", fix="Install it: pip install 'kiki-gateway[mlx]'"
        ) from error

    folder = Path(model).expanduser()
    base = load_base(folder if folder.exists() else model, MlxConfig())
    asked = [Question(text, yes) for text, yes in rows]
    began = time.monotonic()
    with counting() as progress:
        found = find_neurons(base, asked, lambda done, of: progress("questions", done, of))
    made = Probe(folder.name, fingerprint(base.model), found.marks, found.questions)
    if not made.neurons:
        raise EngineError(
            f"No neuron of {model} is shared by enough of the {found.questions} questions, of "
            f"which it answers {found.right} rightly.",
            fix="Take a larger model, or questions that it knows the answers to.",
        )
    write_probe(out, made)
    modules = {name: int(each.sum()) for name, each in found.marks.items() if each.any()}
    told = {
        "file": str(out),
        "model": made.model,
        "fingerprint": made.fingerprint,
        "neurons": made.neurons,
        "modules": modules,
        "questions": found.questions,
        "answered_rightly": found.right,
        "seconds": round(time.monotonic() - began, 1),
    }
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(
        f"{out}: {made.neurons} neurons in {len(modules)} blocks of {made.model}, which "
        f"answers {found.right} of {found.questions} questions rightly."
    )
    click.echo(f"Serve with it: KIKI_KNOWBIAS_PROBE={out}")


@contextmanager
def _embedding() -> Iterator[tuple[Embed, str]]:
    """The router's embedding, each text kept on disk, with a bar; and its name."""
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting
    from routing.training.vectors import VectorCache

    settings = load_settings()
    embedder = load_embedder(settings)
    cache = VectorCache(embedder, settings.models_dir / "antibias-vectors")
    with counting() as progress:
        yield (
            lambda texts: cache.embed(
                texts, lambda done, of: progress("sentences embedded", done, of)
            ),
            embedder.id,
        )


def _questions(path: Path | None) -> list[tuple[str, bool]]:
    from antibias.corpus import OWN

    file = path or OWN / "knowledge.jsonl"
    asked = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            asked.append((str(row["question"]), {"yes": True, "no": False}[row["answer"]]))
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{file}, line {number} is no question: {error!r}.",
                fix='Give JSON lines like {"question": "Is ...?", "answer": "yes"}.',
            ) from error
    if not asked:
        raise EvaluationError(f"{file} holds no question.", fix="Give at least one.")
    return asked


def _table(name: str, metrics: dict[str, Any]) -> list[str]:
    low, high = metrics["macro_f1_95"]
    lines = ["", name.replace("_", " "), f"  macro F1 {metrics['macro_f1']} ({low} to {high})"]
    lines.append("  type          precision  recall   F1 (95 %)")
    for kind, each in metrics["types"].items():
        low, high = each["f1_95"]
        lines.append(
            f"  {kind:<13} {each['precision']['value']:>9.3f}  {each['recall']['value']:>6.3f}  "
            f"{each['f1']:.3f} ({low:.3f} to {high:.3f})"
        )
    for alarms in ("fair_false_alarms", "neutral_false_alarms"):
        each = metrics[alarms]
        if each["n"]:
            low, high = each["95"]
            lines.append(
                f"  {alarms.replace('_', ' ')}: {each['value']:.4f} of {each['n']} "
                f"({low} to {high})"
            )
    return lines
