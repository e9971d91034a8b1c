"""The two ways to train an adapter: peft on the small base's GGUF, mlx_lm on anything it loads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.forms import read_base_shape, read_lora, write_lora
from adapters.training import trainer
from adapters.training.check import check_conversion
from adapters.training.corpus import Row
from adapters.training.fit import CurvePoint, Fit
from adapters.training.job import Job
from adapters.training.mlx_job import MlxJob
from adapters.training.progress import Report
from adapters.training.rows import Encoded
from kiki.errors import AdapterError

Backend = Literal["peft", "mlx"]
CHECKED_PROMPTS = 2
MOST_HELD_OUT = {"peft": 40, "mlx": 400}
"""Held-out rows measured: on two cores more cost minutes, and move the figure little."""
_TOLD = 800  # characters of a dead process's last words


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a backend made. ``check`` compares the served form to the trained one: nats at most."""

    fit: Fit
    rows: int
    held_out_rows: int
    check: Callable[[], float] | None = None


def train_peft(job: Job, made: Path, report: Report) -> Outcome:
    """Train with peft into ``made``; ``job.base`` is a GGUF file. Raises AdapterError."""
    base = Path(job.base)
    if base.suffix != ".gguf":
        raise AdapterError(
            f"The peft backend trains on a GGUF file; the base is {job.base}.",
            fix="Add --backend mlx, or give a .gguf file with --base.",
        )
    model, tokenizer = trainer.load_base(base)
    measured = job.corpus.held_out[: MOST_HELD_OUT["peft"]]
    longest = job.hyper.longest_row
    training = _encode(tokenizer, job.corpus.training, longest)
    held_out = _encode(tokenizer, measured, longest)
    model = trainer.add_adapter(model, job.hyper, seed=job.seed)
    fit = trainer.fit_adapter(model, training, held_out, job, report)
    trainer.save_adapter(model, made)

    def check() -> float:
        rows = measured[:CHECKED_PROMPTS]
        prompts = [trainer.encode_prompt(tokenizer, row.prompt, row.context) for row in rows]
        with tempfile.TemporaryDirectory(prefix="kiki-train-") as folder:
            converted = Path(folder) / f"{job.domain}.gguf"
            write_lora(read_lora(made), "gguf", converted, base=read_base_shape(base))
            return check_conversion(model, prompts, base, converted)

    return Outcome(fit, len(training), len(held_out), check)


def _encode(tokenizer: Any, rows: tuple[Row, ...], longest: int) -> list[Encoded]:
    encoded = [trainer.encode_row(tokenizer, row, longest) for row in rows]
    kept = [row for row in encoded if row.teaches]
    if not kept:
        raise AdapterError(f"No answer begins within {longest} tokens.", fix="Shorten the prompts.")
    return kept


def train_mlx(job: Job, made: Path, report: Report) -> Outcome:
    """Train with mlx_lm, in a process of its own, into ``made``. Raises AdapterError."""
    measured = job.corpus.held_out[: MOST_HELD_OUT["mlx"]]
    facts: dict[str, Any] = {}
    with closing(_events(MlxJob.from_job(job, measured, made))) as events:
        for event in events:
            if "step" in event:
                report(event["step"], event["loss"])
            elif "error" in event:
                raise AdapterError(event["error"], fix=event["fix"])
            else:
                facts |= event
    told = facts["fit"]
    curve = tuple(CurvePoint(**point) for point in told["curve"])
    fit = Fit(told["base_perplexity"], told["adapter_perplexity"], curve, told["seconds"])
    return Outcome(fit, facts["rows"], facts["held_out_rows"])


def _events(job: MlxJob) -> Generator[dict[str, Any]]:
    """What the process reports, until it ends; it never outlives the iterator.

    Raises AdapterError when it dies.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "adapters.training.mlx_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        ) as process,
    ):
        try:
            assert process.stdin
            with suppress(BrokenPipeError):  # it died at once; its exit code says so below
                process.stdin.write(job.to_json())
                process.stdin.close()
            for line in process.stdout or ():
                yield json.loads(line)
            code = process.wait()
        finally:
            process.kill()
        if code != 0:
            errors.seek(0)
            words = errors.read()[-_TOLD:].strip() or "it said nothing"
            how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            raise AdapterError(
                f"The mlx process {how}: {words}",
                fix="Go on from the last checkpoint with --resume; where memory ran out, lower "
                "batch_rows or longest_row in the recipe first.",
            )
