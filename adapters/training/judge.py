"""Is a freshly trained adapter worth keeping? It must beat its base, and pass the gate."""

from __future__ import annotations

from pathlib import Path

from adapters.folders import adapters_in
from adapters.gate import GateReport, run_gate
from adapters.training.fit import Fit
from adapters.training.job import Job
from kiki.errors import AdapterError


def require_better(job: Job, fit: Fit) -> None:
    """Raise AdapterError unless the adapter has the lower perplexity on held-out text."""
    # Written so that a perplexity that is no number fails too.
    if not fit.adapter_perplexity < fit.base_perplexity:
        raise AdapterError(
            f"The {job.domain} adapter has a held-out perplexity of {fit.adapter_perplexity:.2f}, "
            f"the base {fit.base_perplexity:.2f}: it isn't kept.",
            fix="Add training text, or change the number of steps.",
        )


def require_healthy(job: Job, made: Path, prior_dir: Path | None) -> GateReport:
    """The gate's report on the adapter in ``made``, against the adapters in ``prior_dir``.

    No win rate is known yet, so a small angle is told and the adapter kept. Raises AdapterError
    where it is sick.
    """
    report = run_gate(made, _priors(prior_dir, job.out), base=job.hyper.base)
    if report.verdict == "unhealthy":
        raise AdapterError(
            f"The {job.domain} adapter isn't kept: {report.findings[0].detail}",
            fix="Look at the training text, and at the loss of the run.",
        )
    return report


def _priors(folder: Path | None, own: Path) -> list[Path]:
    if folder is None:
        return []
    return [path for path in adapters_in(folder) if path.absolute() != own.absolute()]
