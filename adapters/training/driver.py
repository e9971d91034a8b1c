"""From a job to an adapter that is checked and has its card: what ``kiki adapters train`` runs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.forms import form_of
from adapters.training.backends import Backend, Outcome, train_mlx, train_peft
from adapters.training.card import LICENCE, Card, Source, find_sources, write_card
from adapters.training.checkpoint import start_state
from adapters.training.corpus import CORPORA
from adapters.training.job import Job
from adapters.training.judge import require_better, require_healthy
from adapters.training.progress import Report, report_nothing
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trained adapter in ``out``, with its card: in PEFT form, or in mlx form where mlx made it.

    Perplexities are those of the held-out answers; ``max_logprob_difference`` is in nats, None
    where nothing was converted. ``warnings`` is what its health check found odd, ``angles`` are
    its mean angles to the prior adapters in degrees, ``exit_code`` is the gate's.
    """

    domain: str
    out: Path
    backend: Backend
    rows: int
    held_out_rows: int
    base_perplexity: float
    adapter_perplexity: float
    seconds: float
    max_logprob_difference: float | None
    warnings: tuple[str, ...]
    angles: Mapping[str, float]
    exit_code: int


def train_adapter(
    job: Job,
    *,
    backend: Backend = "peft",
    licence: str = "not stated",
    prior_dir: Path | None = None,
    report: Report = report_nothing,
) -> TrainingResult:
    """Train, check and write the adapter of a job into its folder ``out``.

    Nothing is written unless the adapter beats the base on its held-out text, is healthy, and its
    conversion agrees with what was trained; otherwise, and for bad text, AdapterError is raised.
    ``licence`` is that of text which isn't kiki's own, and of what is made of it. The gate
    measures angles to the adapters in ``prior_dir``.
    """
    _require_room(job.out)
    start_state(job.work, job.fingerprint, resume=job.resume)  # before the base is loaded
    sources = _sources(job, licence)
    made = job.work / "adapter"
    shutil.rmtree(made, ignore_errors=True)
    outcome = (train_peft if backend == "peft" else train_mlx)(job, made, report)
    try:
        require_better(job, outcome.fit)
        gate = require_healthy(job, made, prior_dir)
        difference = outcome.check() if outcome.check else None
    except AdapterError:
        shutil.rmtree(job.work)
        raise
    licence = LICENCE if job.corpus.path.is_file() else licence
    write_card(_card(job, backend, licence, sources, outcome, difference), made)
    _publish(made, job)
    fit = outcome.fit
    log.info("trained %s: %.2f -> %.2f", job.domain, fit.base_perplexity, fit.adapter_perplexity)
    return TrainingResult(
        domain=job.domain,
        out=job.out,
        backend=backend,
        rows=outcome.rows,
        held_out_rows=outcome.held_out_rows,
        base_perplexity=fit.base_perplexity,
        adapter_perplexity=fit.adapter_perplexity,
        seconds=fit.seconds,
        max_logprob_difference=difference,
        warnings=tuple(finding.detail for finding in gate.findings),
        angles={one.prior: round(one.angles.mean, 2) for one in gate.comparisons},
        exit_code=gate.exit_code,
    )


def _require_room(out: Path) -> None:
    """An adapter may replace one, and nothing else."""
    if out.exists() and not out.is_dir():
        raise AdapterError(f"{out} is a file.", fix="Give a new folder with --out.")
    if out.is_dir() and any(out.iterdir()) and form_of(out) is None:
        raise AdapterError(f"{out} holds other files.", fix="Give a new folder with --out.")


def _sources(job: Job, licence: str) -> tuple[Source, ...]:
    if job.corpus.path.is_file():
        return find_sources(job.corpus.sources)
    return (Source(job.corpus.path.name, f"the chats in {job.corpus.path.name}", licence),)


def _publish(made: Path, job: Job) -> None:
    """Put the adapter in its place, whole, and remove what the run left."""
    if job.out.exists():
        job.out.rename(job.work / "replaced")
    made.rename(job.out)
    shutil.rmtree(job.work)


def _card(
    job: Job,
    backend: Backend,
    licence: str,
    sources: tuple[Source, ...],
    outcome: Outcome,
    difference: float | None,
) -> Card:
    hyper, fit = job.hyper, outcome.fit
    own = job.corpus.path.parent == CORPORA
    return Card(
        domain=job.domain,
        base=hyper.base,
        licence=licence,
        sources=sources,
        rows=outcome.rows,
        held_out_rows=outcome.held_out_rows,
        data_sha256=job.corpus.sha256,
        rank=hyper.rank,
        alpha=hyper.alpha,
        modules=hyper.modules,
        steps=hyper.iterations,
        batch_rows=hyper.batch_rows,
        learning_rate=hyper.learning_rate,
        seed=job.seed,
        base_perplexity=round(fit.base_perplexity, 3),
        adapter_perplexity=round(fit.adapter_perplexity, 3),
        curve=fit.curve,
        max_logprob_difference=None if difference is None else round(difference, 5),
        seconds=fit.seconds,
        date=datetime.now(UTC).date().isoformat(),
        backend=backend,
        layers=hyper.layers,
        data="" if own else f"from `{job.corpus.path.name}`",
    )
