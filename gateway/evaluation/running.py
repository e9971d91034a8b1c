"""Asks every question of every arm, several questions at a time, and keeps each when it is done."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.assets import ModelFiles
from gateway.evaluation.arms import FULL, RAW, Controls
from gateway.evaluation.pipeline_arms import answer
from gateway.evaluation.question import Benchmark, Question
from gateway.evaluation.records import Record, RunFolder
from gateway.services import Services
from gateway.settings import Settings
from kiki import __version__
from kiki.errors import KikiError

Progress = Callable[[str, int, int], None]

ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    "negotiator",
    "antibias",
    "routing",
    "gateway/stages",
    "gateway/plan.py",
    "gateway/evaluation",
    "adapters/policy.toml",
)
_CODE_SUFFIXES = (".py", ".toml", ".safetensors")
_SHOWS_ONLY = ("report.py", "page.py", "picture.py", "records.py", "statistics.py")
# The settings that an answer may depend on begin so.
_SETTINGS = (
    "engine",
    "router_threshold",
    "advisor",
    "second_look",
    "judge",
    "deep_judge",
    "catfish",
    "antibias",
    "knowbias",
)
_SAME_ANSWERS = ("engine_threads", "engine_slots", "engine_start_timeout")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The questions of one benchmark that are asked, and the digest of its files."""

    benchmark: Benchmark
    questions: Sequence[Question]
    sha256: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: everything that the numbers depend on, but for the machine.

    ``kiki`` is what full's requests say in their ``kiki`` object.
    """

    chosen: Sequence[Chosen]
    arms: Sequence[str]
    split: str
    seed: int
    kiki: Mapping[str, Any]


@asynccontextmanager
async def started(settings: Settings, files: ModelFiles) -> AsyncIterator[Services]:
    """The gateway's parts, started and stopped; without HTTP."""
    services = await Services.start(settings, files)
    try:
        yield services
    finally:
        await services.stop()


def manifest(plan: Plan, services: Services, files: ModelFiles) -> dict[str, Any]:
    """What a run's folder may hold records of."""
    settings = services.settings.model_dump(mode="json")
    return {
        "kiki": __version__,
        "code": _code(),
        "model": _model(files.base),
        "adapters": {
            name: adapter.fingerprint for name, adapter in services.adapter_set.serving.items()
        },
        "arms": list(plan.arms),
        "split": plan.split,
        "seed": plan.seed,
        "kiki_options": dict(plan.kiki),
        "settings": {
            name: value
            for name, value in settings.items()
            if name.startswith(_SETTINGS) and name not in _SAME_ANSWERS
        },
        "benchmarks": {
            one.benchmark.name: {"sha256": one.sha256, "max_tokens": one.max_tokens}
            for one in plan.chosen
        },
    }


async def ask_all(
    services: Services, plan: Plan, folder: RunFolder, *, parallel: int, progress: Progress
) -> None:
    """Ask what the folder has no record of. Raises KikiError when the engine fails.

    A batch of other rows moves the last bits of the logits, so with ``parallel`` over 1 a greedy
    answer may now and then be another one; that falls on all arms alike.
    """
    done = {record["id"] for record in folder.records()}
    left: list[tuple[Chosen, Question]] = []
    counts: dict[str, int] = {}
    for one in plan.chosen:
        pending = [question for question in one.questions if question.id not in done]
        left += [(one, question) for question in pending]
        counts[one.benchmark.name] = len(one.questions) - len(pending)
        progress(one.benchmark.name, counts[one.benchmark.name], len(one.questions))
    questions = iter(left)

    async def work() -> None:
        for one, question in questions:  # shared: each question goes to one worker
            folder.append(await _ask(services, plan, one, question))
            name = one.benchmark.name
            counts[name] += 1
            progress(name, counts[name], len(one.questions))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(parallel, len(left))):
                group.create_task(work())
    except* KikiError as failed:
        first = failed.exceptions[0]
        raise first from None


async def _ask(services: Services, plan: Plan, one: Chosen, question: Question) -> Record:
    benchmark = one.benchmark
    outcomes = {}
    for arm in (RAW, FULL):
        if arm in plan.arms:
            outcomes[arm] = await answer(
                arm,
                services,
                benchmark,
                question,
                kiki=dict(plan.kiki),
                max_tokens=one.max_tokens,
            )
    if RAW in outcomes and FULL in outcomes:
        controls = Controls(services.engine, max_tokens=one.max_tokens, seed=plan.seed)
        outcomes |= await controls.answer(
            plan.arms, benchmark, question, outcomes[RAW], outcomes[FULL].tokens
        )
    return {
        "id": question.id,
        "benchmark": benchmark.name,
        "unit": question.unit,
        "prompt": question.prompt,
        "expected": question.expected,
        "facts": dict(question.facts),
        "arms": {arm: outcomes[arm].to_dict() for arm in plan.arms},
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _model(base: Path | str) -> dict[str, Any]:
    path = Path(base)
    if not path.is_file():
        return {"name": str(base)}
    with path.open("rb") as file:
        return {"name": path.stem, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _code() -> str:
    """Of everything here that decides what is answered and whether it is right."""
    found = hashlib.sha256()
    for name in _CODE:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.suffix in _CODE_SUFFIXES and file.name not in _SHOWS_ONLY:
                found.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return found.hexdigest()[:16]
