"""``kiki bench negotiator``: recorded panels through the negotiator, or a live judge on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.catalog import Catalog
from adapters.engines.base import complete
from gateway.assets import ModelFiles, ensure_models
from gateway.bench.report import Metric, Report, median
from gateway.engines import Machine, build_engine, choose_engine
from gateway.generate import engine_request
from gateway.settings import Settings
from gateway.thinking import strip_thinking
from kiki.budget import Budget
from kiki.errors import RequestError
from negotiator.calibration import Judged, calibrate
from negotiator.catfish import UNSURE, WEAK, arguments_strength
from negotiator.negotiate import Panel, negotiate
from negotiator.panel_cases import PanelCase, Replay, read_panels
from negotiator.prompt import Generate, Prompt, Reply
from negotiator.verdict import Verdict
from routing.embedder import Embedder

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A panel, what became of it, and the seconds that took."""

    case: PanelCase
    verdict: Verdict
    seconds: float


def measure(
    settings: Settings, panels: Path, prompts: Path, live: bool, progress: Progress
) -> Report:
    """Negotiates the recorded panels.

    Votes are the recorded ones; judgements and dissent are the served model's where ``live``, and
    else not made: the attending's draft then stands for a verdict of the judge. Raises
    RequestError for a file without panels.
    """
    cases = read_panels(panels, prompts)
    if not cases:
        raise RequestError(
            f"{panels} has no panels of the prompts in {prompts}.",
            fix="Record some: kiki bench negotiator --record FILE",
        )
    outcomes = asyncio.run(_negotiate(settings, cases, live, progress))
    metrics = _metrics(outcomes, live)
    unsure = UNSURE if settings.catfish_below is None else settings.catfish_below
    chosen = {"panels": str(panels), "live": live, "catfish_below": unsure}
    return Report("negotiator", metrics, chosen | settings.model_dump(mode="json"))


async def _negotiate(
    settings: Settings, cases: Sequence[PanelCase], live: bool, progress: Progress
) -> list[Outcome]:
    files = ensure_models(settings)
    embedder = Embedder(files.embedder, threads=settings.router_threads)
    if not live:
        return await _run(settings, cases, embedder, None, progress)
    async with _Served(settings, files) as served:
        return await _run(settings, cases, embedder, served, progress)


async def _run(
    settings: Settings,
    cases: Sequence[PanelCase],
    embedder: Embedder,
    served: Generate | None,
    progress: Progress,
) -> list[Outcome]:
    outcomes = []
    unsure = UNSURE if settings.catfish_below is None else settings.catfish_below
    for number, case in enumerate(cases, 1):
        replay = Replay(case)
        panel = Panel(
            generate=_recorded_or(replay, served) if served else replay,
            embed=embedder.embed,
            unsure=unsure,
        )
        budget = Budget(settings.second_look_tokens, settings.second_look_seconds)
        began = time.perf_counter()
        question, seed = case.prompt.question, case.seed
        verdict = await negotiate(question, case.drafts, panel, budget=budget, seed=seed)
        outcomes.append(Outcome(case, verdict, time.perf_counter() - began))
        progress("panels", number, len(cases))
    return outcomes


def _recorded_or(replay: Replay, served: Generate) -> Generate:
    """Specialists as recorded, the base model live."""

    async def generate(prompts: Sequence[Prompt]) -> Sequence[Reply]:
        live = any(prompt.adapter is None for prompt in prompts)
        return await served(prompts) if live else await replay(prompts)

    return generate


class _Served:
    """The engine of the settings, for as long as it is entered."""

    def __init__(self, settings: Settings, files: ModelFiles) -> None:
        self._engine = build_engine(settings, choose_engine(settings, Machine.here()), files.base)
        self._folder = settings.adapters_dir

    async def __aenter__(self) -> Generate:
        await self._engine.set_adapters(Catalog(self._folder).scan().adapters)
        await self._engine.start()
        return self._generate

    async def __aexit__(self, *error: object) -> None:
        await self._engine.stop()

    async def _generate(self, prompts: Sequence[Prompt]) -> list[Reply]:
        done = await complete(self._engine, [engine_request(prompt) for prompt in prompts])
        return [
            Reply(strip_thinking(c.text), c.usage.prompt_tokens + c.usage.completion_tokens)
            for c in done
        ]


def _metrics(outcomes: Sequence[Outcome], live: bool) -> dict[str, Metric]:
    verdicts = [outcome.verdict for outcome in outcomes]
    judged = [_judged(outcome) for outcome in outcomes]
    metrics = {
        "catfish_rate": _share([bool(v.gate and v.gate.fired) for v in verdicts]),
        "agreed": _share([v.how in ("identical", "agreement") for v in verdicts]),
        "consensus": _share([v.how == "consensus" for v in verdicts]),
        "judged": _share([v.judge is not None for v in verdicts]),
        "attending_right": _share([o.case.prompt.right(o.case.drafts[0].text) for o in outcomes]),
        "chosen_right": _share([o.case.prompt.right(o.verdict.text) for o in outcomes]),
        "any_right": _share(
            [any(o.case.prompt.right(d.text) for d in o.case.drafts) for o in outcomes]
        ),
    }
    if live:
        tokens = [float(verdict.tokens) for verdict in verdicts]
        metrics["overruled"] = _share([v.dissent == "overruled" for v in verdicts])
        metrics["audit_hits"] = _share(
            [any(a.outcome == "hit" for a in v.audits) for v in verdicts]
        )
        metrics["judge_tokens_p50"] = median(tokens, "tokens")
        return metrics
    metrics["decided_p50_ms"] = median([outcome.seconds * 1e3 for outcome in outcomes], "ms")
    try:
        found = calibrate(judged)
    except ValueError:
        return metrics
    metrics["calibrated_catfish_below"] = Metric(round(found.threshold, 4), "", len(outcomes))
    metrics["calibrated_rate"] = Metric(round(found.rate, 4), "", len(outcomes))
    metrics["calibrated_gain"] = Metric(round(found.gain, 4), "", len(outcomes))
    return metrics


def _judged(outcome: Outcome) -> Judged:
    verdict = outcome.verdict
    assert verdict.gate is not None
    winner = verdict.candidates[verdict.winner]
    votes = [vote for vote in verdict.votes if vote.candidate == verdict.winner]
    at_once = all(vote.choice == "KEEP" for vote in votes)
    weak = arguments_strength(winner, verdict.winner, votes) < WEAK
    return Judged(verdict.gate.confidence, at_once and weak, outcome.case.prompt.right(winner.text))


def _share(found: Sequence[bool]) -> Metric:
    return Metric(round(sum(found) / len(found), 4), "", len(found))
