"""The cerebellum against its benchmark: memory/benchmark/{memorize,arbitrate}.jsonl."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from memory.cerebellum import Cerebellum
from memory.shelves import Embed

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class MemorizeCase:
    """``keep`` is the one sentence to keep of a text of several, where one is marked."""

    id: str
    lang: str
    kind: str
    text: str
    save: bool
    keep: str | None = None


@dataclass(frozen=True, slots=True)
class ArbitrateCase:
    """``added`` is whether the new statement is to be stored."""

    id: str
    kind: str
    stored: str
    new: str
    action: str
    added: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case decided. ``positive`` and ``said`` are whether something is to be done (SAVE, or
    UPDATE and DELETE), and whether it was; ``right`` asks for the very action."""

    id: str
    kind: str
    positive: bool
    said: bool
    right: bool
    detail: bool
    ms: float


def memorize_cases() -> list[MemorizeCase]:
    return [MemorizeCase(**row) for row in _rows("memorize")]


def arbitrate_cases() -> list[ArbitrateCase]:
    return [ArbitrateCase(**row) for row in _rows("arbitrate")]


def is_held_out(case_id: str) -> bool:
    """The half that the rules were not tuned on."""
    return int(case_id[1:]) // 2 % 2 == 0


def evaluate(cerebellum: Cerebellum, embed: Embed, progress: Progress) -> dict[str, Any]:
    """Both tables: accuracy, FP, FN, by half and by kind, latency, and who decided how often."""
    memorized = _memorize(cerebellum, progress)
    arbitrated = _arbitrate(cerebellum, embed, progress)
    return {
        "memorize": _table(memorized, "keep_accuracy"),
        "arbitrate": _table(arbitrated, "added_accuracy"),
        "decided_by": dict(cerebellum.counts),
    }


def _memorize(cerebellum: Cerebellum, progress: Progress) -> list[Outcome]:
    cases = memorize_cases()
    outcomes = []
    for done, case in enumerate(cases, start=1):
        began = time.perf_counter()
        kept = cerebellum.memorize(case.text)
        ms = (time.perf_counter() - began) * 1000
        detail = case.keep is None or [one.text for one in kept] == [case.keep]
        saved = bool(kept)
        outcomes.append(
            Outcome(case.id, case.kind, case.save, saved, saved == case.save, detail, ms)
        )
        progress("memorize", done, len(cases))
    return outcomes


def _arbitrate(cerebellum: Cerebellum, embed: Embed, progress: Progress) -> list[Outcome]:
    cases = arbitrate_cases()
    outcomes = []
    for done, case in enumerate(cases, start=1):
        # A stored fact has its vector, and the new one's is made before it is weighed.
        stored, new = embed([case.stored, case.new])
        began = time.perf_counter()
        verdict = cerebellum.arbitrate(case.stored, case.new, float(stored @ new))
        ms = (time.perf_counter() - began) * 1000
        right = verdict.action == case.action
        outcomes.append(
            Outcome(
                case.id,
                case.kind,
                case.action != "NONE",
                verdict.action != "NONE",
                right,
                right and verdict.added == case.added,
                ms,
            )
        )
        progress("arbitrate", done, len(cases))
    return outcomes


def _table(outcomes: Sequence[Outcome], detail: str) -> dict[str, Any]:
    kinds: defaultdict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        kinds[one.kind].append(one)
    times = [one.ms for one in outcomes]
    return {
        **_scores(outcomes, detail),
        "tune": _scores([one for one in outcomes if not is_held_out(one.id)], detail),
        "held_out": _scores([one for one in outcomes if is_held_out(one.id)], detail),
        "kinds": {kind: _scores(ones, detail) for kind, ones in kinds.items()},
        "latency_ms": {
            "p50": round(float(np.percentile(times, 50)), 3),
            "p95": round(float(np.percentile(times, 95)), 3),
        },
        "wrong": [one.id for one in outcomes if not one.right],
    }


def _scores(outcomes: Sequence[Outcome], detail: str) -> dict[str, Any]:
    count = len(outcomes)
    return {
        "n": count,
        "accuracy": _share(one.right for one in outcomes),
        detail: _share(one.detail for one in outcomes),
        "fp": sum(one.said and not one.positive for one in outcomes),
        "fn": sum(one.positive and not one.said for one in outcomes),
    }


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return round(sum(found) / len(found), 4) if found else 0.0


def _rows(name: str) -> list[dict[str, Any]]:
    text = resources.files("memory").joinpath("benchmark", f"{name}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def as_text(report: Mapping[str, Mapping[str, Any]]) -> str:
    """``report`` maps who decided to what `evaluate` gives; a table for people."""
    lines = []
    for name, tables in report.items():
        for task in ("memorize", "arbitrate"):
            table = tables[task]
            latency = table["latency_ms"]
            lines.append(f"{task} by {name}: p50 {latency['p50']} ms, p95 {latency['p95']} ms")
            halves = {"all": table, "tune": table["tune"], "held out": table["held_out"]}
            for row, scores in (halves | table["kinds"]).items():
                lines.append(
                    f"  {row:<16} accuracy {scores['accuracy']:.3f}"
                    f"  FP {scores['fp']:>2}  FN {scores['fn']:>2}  n={scores['n']}"
                )
        decided = ", ".join(f"{what} {count}" for what, count in tables["decided_by"].items())
        lines.append(f"decided by: {decided}")
    return "\n".join(lines)
