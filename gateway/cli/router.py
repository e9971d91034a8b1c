"""``kiki router``: train, evaluate and check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.settings import load_settings

if TYPE_CHECKING:
    from routing.card import Card
    from routing.training.measure import Measured

_SHOWN = ("top1", "top3", "ece", "macro_f1", "micro_f1", "oos_auroc", "oos_fallback")


@click.group("router")
def command() -> None:
    """Train, evaluate and check the router."""


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
    help="JSON lines: prompt (or messages), and domain or domains ([] is out of scope). May be "
    "given again. Without it, the sets that come with kiki.",
)
@click.option(
    "--clinc",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CLINC150's JSON: its out-of-scope prompts against the test part.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of weights and card; default: the packaged ones.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write report.html, report.json and a confusion matrix (SVG) of each set to this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    files: tuple[Path, ...],
    clinc: Path | None,
    weights: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure the router on prompts that its weights have not seen.

    The numbers at the top are those of the test part, or of all files together.
    """
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting, pulling
    from routing.conversation import Conversations
    from routing.domains import load_domains
    from routing.router import Router
    from routing.training.datasets import Dataset, from_files, held_out
    from routing.training.measure import measure

    if files and clinc:
        raise click.UsageError("--clinc goes with the sets that come with kiki: leave out --file.")
    settings = load_settings()
    table = load_domains()
    sets = from_files(files, table)
    if len(sets) > 1:
        every = tuple(row for one in sets for row in one.rows)
        sets = [Dataset("all files", "all files together", every), *sets]
    with pulling() as pulled:
        embedder = load_embedder(settings, pulled)
    router = Router.load(weights, table, embedding_id=embedder.id)
    sets = sets or held_out(table, router.card, clinc=clinc)
    conversations = Conversations(router, embedder)
    with counting() as progress:
        measured = [measure(one, embedder, conversations, progress) for one in sets]
    if out:
        _write(out, measured, router.card)
    if as_json:
        click.echo(json.dumps(_as_dict(measured, router.card)))
        return
    for one in measured:
        click.echo(_as_text(one))
    if out:
        click.echo(f"Written: {out / 'report.html'}")


@command.command("validate")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(as_json: bool) -> None:
    """Check that everything of the router agrees; nothing is embedded or changed.

    The domain table against weights, card, index, prompts (names, at least 80 a domain, repeats,
    languages), recipes, adapters, intents and model names. Exits with 1 when something is wrong;
    notes alone don't count.
    """
    from gateway.router_check import mirrors
    from routing.validation import validate as validate_routing

    table, findings = validate_routing()
    findings += mirrors(table) if table else []
    wrong = sum(found.level == "wrong" for found in findings)
    if as_json:
        rows = [asdict(found) for found in findings]
        click.echo(json.dumps({"wrong": wrong, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        for found in findings:
            click.echo(f"{'note: ' if found.level == 'note' else ''}{found}")
        domains = len(table.domains) if table else 0
        kept = "everything agrees" if not wrong else f"{wrong} things are wrong"
        click.echo(f"{domains} domains: {kept}.")
    if wrong:
        raise click.exceptions.Exit(1)


@command.command("fit-follow-ups")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fit_follow_ups(as_json: bool) -> None:
    """Fit how much of a follow-up's route its conversation decides; nothing is changed.

    Fits on one half of the packaged conversations, measures on both. The formula stands in
    routing/conversation.py; after new weights, fit it again and see whether it gains.
    """
    from gateway.assets import load_embedder
    from gateway.cli.progress import pulling
    from routing.conversation import FORMULA, Conversations
    from routing.domains import load_domains
    from routing.router import Router
    from routing.training import follow_ups
    from routing.training.datasets import follow_ups as halves

    table = load_domains()
    with pulling() as pulled:
        embedder = load_embedder(load_settings(), pulled)
    router = Router.load(table=table, embedding_id=embedder.id)
    conversations = Conversations(router, embedder)
    tuned, other = (
        follow_ups.read(halves(table, tuned=half), embedder, conversations)
        for half in (True, False)
    )
    formulas = {"in use": FORMULA, "fitted": follow_ups.fit(tuned).formula}
    found = {
        name: {
            "formula": formula,
            "tuned": asdict(follow_ups.measured(tuned, formula)),
            "other": asdict(follow_ups.measured(other, formula)),
        }
        for name, formula in formulas.items()
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{len(tuned)} turns to fit on, {len(other)} others")
    for name, formula in formulas.items():
        click.echo(f"{name}: bias {formula[0]:g}, words {formula[1]:g}, log-odds {formula[2]:g}")
        for half, turns in (("fitted on", tuned), ("the others", other)):
            one = follow_ups.measured(turns, formula)
            click.echo(f"  {half:<11} loss {one.loss:.3f}  top1 {one.top1:.3f}")


def _as_dict(measured: Sequence[Measured], card: Card) -> dict[str, object]:
    """The first set's numbers, with all sets under ``datasets``."""
    every = {one.name: one.to_dict() for one in measured}
    first = next(iter(every.values()), {})
    return first | {"weights": _facts(card), "datasets": every}


def _facts(card: Card) -> dict[str, str]:
    return {
        "weights of": card.date,
        "sha256": card.weights_sha256[:12],
        "embedding": card.embedding_id,
        "threshold": f"{card.threshold:g}",
    }


def _as_text(one: Measured) -> str:
    report = one.report
    outside = f", {report.n_out_of_scope} of them out of scope" if report.n_out_of_scope else ""
    lines = [f"{one.name}: {report.n} prompts{outside} ({one.note})"]
    for name in _SHOWN:
        value, found = getattr(report, name), report.intervals.get(name)
        if value is not None:
            interval = f"  [{found.low:.3f}, {found.high:.3f}]" if found else ""
            lines.append(f"  {name:<13} {value:.3f}{interval}")
    lines += [f"  {way:<17} {top1:.3f} (top1)" for way, top1 in one.baselines.items()]
    if one.route_p50_ms is not None:
        lines.append(f"  route_p50_ms  {one.route_p50_ms:.1f}")
    return "\n".join(lines)


def _write(folder: Path, measured: Sequence[Measured], card: Card) -> None:
    from routing.training.page import page
    from routing.training.picture import confusion_svg

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page(measured, _facts(card)), encoding="utf-8")
    text = json.dumps(_as_dict(measured, card), indent=1)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    for one in measured:
        svg = confusion_svg(one.report.outputs, one.report.confusion, one.name)
        name = "-".join(one.name.split())
        (folder / f"confusion-{name}.svg").write_text(svg, encoding="utf-8")
