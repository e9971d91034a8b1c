"""What the mlx process is told, as JSON on its stdin, and what it tells back, a JSON a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters.recipes import Hyperparameters
from adapters.training.corpus import Message, Row
from adapters.training.job import Job

Chat = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class MlxJob:
    """A job without what the process needn't know. Each chat ends with the answer to learn."""

    base: str
    hyper: Hyperparameters
    training: tuple[Chat, ...]
    held_out: tuple[Chat, ...]
    run: str
    work: Path
    made: Path
    seed: int
    checkpoint_every: int
    memory_limit_gb: int
    cache_limit_gb: int
    gradient_checkpoints: bool
    resume: bool

    @classmethod
    def from_job(cls, job: Job, held_out: tuple[Row, ...], made: Path) -> MlxJob:
        """The job for the process; it writes the adapter into ``made``."""
        return cls(
            base=job.base,
            hyper=job.hyper,
            training=tuple(map(_chat, job.corpus.training)),
            held_out=tuple(map(_chat, held_out)),
            run=job.fingerprint,
            work=job.work.absolute(),
            made=made.absolute(),
            seed=job.seed,
            checkpoint_every=job.checkpoint_every,
            memory_limit_gb=job.memory_limit_gb,
            cache_limit_gb=job.cache_limit_gb,
            gradient_checkpoints=job.gradient_checkpoints,
            resume=job.resume,
        )

    def to_json(self) -> str:
        values = asdict(self) | {"hyper": self.hyper.model_dump()}
        return json.dumps(values, default=str)

    @classmethod
    def from_json(cls, text: str) -> MlxJob:
        values: dict[str, Any] = json.loads(text)
        values["hyper"] = Hyperparameters.model_validate(values["hyper"])
        for name in ("training", "held_out"):
            values[name] = tuple(tuple(Message(**m) for m in chat) for chat in values[name])
        values |= {name: Path(values[name]) for name in ("work", "made")}
        return cls(**values)


def _chat(row: Row) -> Chat:
    return (*row.context, Message("user", row.prompt), Message("assistant", row.answer.strip()))
