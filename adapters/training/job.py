"""One training run, with everything decided."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from adapters.recipes import Hyperparameters, Recipe
from adapters.training.corpus import Corpus
from kiki.errors import AdapterError


@dataclass(frozen=True, slots=True)
class Job:
    """Which adapter is trained, on which base and text, how, and where it goes.

    ``base`` is a GGUF file, a model folder, or a name on the hub. Until the adapter is whole and
    found good, the run's files lie in ``work``; ``out`` appears at the end.
    """

    domain: str
    base: str
    hyper: Hyperparameters
    corpus: Corpus
    out: Path
    seed: int
    checkpoint_every: int
    memory_limit_gb: int
    cache_limit_gb: int
    gradient_checkpoints: bool
    resume: bool = False

    @property
    def work(self) -> Path:
        """The folder of the run's checkpoint and unfinished files."""
        return self.out.parent / f".{self.out.name}.training"

    @property
    def fingerprint(self) -> str:
        """The same for two runs that give the same adapter."""
        parts = [self.domain, self.base, self.hyper.model_dump_json(), self.corpus.sha256]
        return sha256(json.dumps([*parts, self.seed]).encode()).hexdigest()[:16]


def plan_job(
    recipe: Recipe,
    *,
    base: str,
    corpus: Corpus,
    out: Path,
    small: bool,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
) -> Job:
    """The run of a recipe; ``small`` takes its table for the small base. Raises AdapterError."""
    hyper = recipe.small if small else recipe.full
    if steps is not None:
        if steps < 1:
            raise AdapterError(f"steps is {steps}; train for at least 1.")
        hyper = hyper.model_copy(update={"iterations": steps})
    return Job(
        domain=recipe.domain,
        base=base,
        hyper=hyper,
        corpus=replace(corpus, domain=recipe.domain),
        out=out,
        seed=recipe.seed if seed is None else seed,
        checkpoint_every=recipe.checkpoint_every,
        memory_limit_gb=recipe.memory_limit_gb,
        cache_limit_gb=recipe.cache_limit_gb,
        gradient_checkpoints=recipe.gradient_checkpoints,
        resume=resume,
    )
