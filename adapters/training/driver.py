"""From a corpus to a checked adapter: what ``kiki adapters train`` runs."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.convert import convert_peft_to_gguf
from adapters.training import trainer
from adapters.training.card import LICENCE, Card, find_sources, write_card
from adapters.training.check import check_conversion
from adapters.training.corpus import CORPORA, read_corpus
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")

STEPS = 90
MOST_HELD_OUT = 40  # rows measured: more costs minutes on two cores and moves the figure little
CHECKED_PROMPTS = 2


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trained adapter in PEFT form in ``out``, with its card.

    Perplexities are those of the held-out answers; ``max_logprob_difference`` is in nats.
    """

    domain: str
    out: Path
    rows: int
    held_out_rows: int
    base_perplexity: float
    adapter_perplexity: float
    seconds: float
    max_logprob_difference: float


def train_adapter(
    domain: str,
    *,
    out: Path,
    base_gguf: Path,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
    corpora: Path = CORPORA,
) -> TrainingResult:
    """Train, convert, check and write an adapter for ``domain`` into the folder ``out``.

    Nothing is written unless the adapter beats the base on its held-out text and its conversion
    agrees with PEFT; otherwise, and for a bad corpus, AdapterError is raised.
    """
    if steps < 1:
        raise AdapterError(f"steps is {steps}; train for at least 1.")
    corpus = read_corpus(domain, folder=corpora)
    sources = find_sources(corpus.sources)
    model, tokenizer = trainer.load_base(base_gguf)
    training = [trainer.encode_row(tokenizer, row) for row in corpus.training]
    held_out_rows = corpus.held_out[:MOST_HELD_OUT]
    held_out = [trainer.encode_row(tokenizer, row) for row in held_out_rows]
    model = trainer.add_adapter(model, seed=seed)
    fit = trainer.fit_adapter(model, training, held_out, steps=steps, seed=seed, progress=progress)
    # Written so that a perplexity that is no number fails too.
    if not fit.adapter_perplexity < fit.base_perplexity:
        raise AdapterError(
            f"The {domain} adapter has a held-out perplexity of {fit.adapter_perplexity:.2f}, "
            f"the base {fit.base_perplexity:.2f}: it isn't kept.",
            fix="Add training text, or change the number of steps.",
        )
    prompts = [trainer.encode_prompt(tokenizer, r.prompt) for r in held_out_rows[:CHECKED_PROMPTS]]
    with tempfile.TemporaryDirectory(prefix="kiki-train-") as folder:
        made = Path(folder) / domain
        trainer.save_adapter(model, made)
        converted = Path(folder) / f"{domain}.gguf"
        convert_peft_to_gguf(made, base_gguf, converted)
        difference = check_conversion(model, prompts, base_gguf, converted)
        card = Card(
            domain=domain,
            base=trainer.BASE_NAME,
            licence=LICENCE,
            sources=sources,
            rows=len(training),
            held_out_rows=len(held_out),
            data_sha256=corpus.sha256,
            rank=trainer.RANK,
            alpha=trainer.ALPHA,
            modules=trainer.TARGET_MODULES,
            steps=steps,
            batch_rows=trainer.BATCH_ROWS,
            learning_rate=trainer.LEARNING_RATE,
            seed=seed,
            base_perplexity=round(fit.base_perplexity, 3),
            adapter_perplexity=round(fit.adapter_perplexity, 3),
            curve=fit.curve,
            max_logprob_difference=round(difference, 5),
            seconds=fit.seconds,
            date=datetime.now(UTC).date().isoformat(),
        )
        write_card(card, made)
        shutil.copytree(made, out, dirs_exist_ok=True)
    log.info("trained %s: %.2f -> %.2f", domain, fit.base_perplexity, fit.adapter_perplexity)
    return TrainingResult(
        domain=domain,
        out=out,
        rows=len(training),
        held_out_rows=len(held_out),
        base_perplexity=fit.base_perplexity,
        adapter_perplexity=fit.adapter_perplexity,
        seconds=fit.seconds,
        max_logprob_difference=difference,
    )
