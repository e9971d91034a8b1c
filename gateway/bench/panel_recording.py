"""Real panels for ``kiki bench negotiator``: drafts and votes of the adapters that are served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from adapters.catalog import Catalog
from adapters.engines.base import Engine, GenerateRequest, Message, Sampling, complete
from adapters.mix import Mix
from gateway.assets import ensure_models
from gateway.engines import Machine, build_engine, choose_engine
from gateway.generate import engine_request
from gateway.settings import Settings
from kiki.errors import RequestError
from negotiator.ballot import Slate, Vote, ballot_prompt, read_ballot
from negotiator.candidate import Candidate, merge
from negotiator.panel_cases import PROMPTS, PanelCase, PanelPrompt, read_prompts

Progress = Callable[[str, int, int], None]

DRAFT_TOKENS = 160


def record(settings: Settings, out: Path, progress: Progress, prompts: Path = PROMPTS) -> int:
    """Has the served adapters write and vote on all prompts; the number of panels written.

    A panel that ``out`` already holds is not recorded again. Raises RequestError where a prompt
    names an adapter that isn't served.
    """
    return asyncio.run(_record(settings, read_prompts(prompts), out, progress))


async def _record(
    settings: Settings, prompts: Sequence[PanelPrompt], out: Path, progress: Progress
) -> int:
    files = ensure_models(settings)
    engine = build_engine(settings, choose_engine(settings, Machine.here()), files.base)
    await engine.set_adapters(Catalog(settings.adapters_dir).scan().adapters)
    done = _recorded(out)
    await engine.start()
    try:
        with out.open("a", encoding="utf-8") as file:
            for number, prompt in enumerate(prompts, 1):
                if prompt.question not in done:
                    case = await _panel(engine, prompt)
                    file.write(json.dumps(case.to_dict(), ensure_ascii=False) + "\n")
                    file.flush()
                progress("panels", number, len(prompts))
    finally:
        await engine.stop()
    return len(prompts) - len(done)


async def _panel(engine: Engine, prompt: PanelPrompt) -> PanelCase:
    missing = set(prompt.adapters).difference(engine.adapters)
    if missing:
        raise RequestError(
            f"{prompt.question!r} asks for {', '.join(sorted(missing))}, not served here.",
            fix="Serve it, or give prompts of your own: --prompts FILE",
        )
    messages = (Message("user", prompt.question),)
    sampling = Sampling(max_tokens=DRAFT_TOKENS, temperature=0.0, seed=0)
    rows = [GenerateRequest(messages, Mix.single(name), sampling) for name in prompt.adapters]
    drafts = tuple(
        Candidate(done.text, (name,), done.usage.completion_tokens)
        for name, done in zip(prompt.adapters, await complete(engine, rows), strict=True)
    )
    case = PanelCase(prompt, drafts, ())
    return replace(case, votes=await _votes(engine, case))


async def _votes(engine: Engine, case: PanelCase) -> tuple[Vote, ...]:
    prompt = case.prompt
    slate = Slate.shuffled(prompt.question, merge(case.drafts), case.seed)
    rows = [engine_request(ballot_prompt(slate, name)) for name in prompt.adapters]
    replies = await complete(engine, rows)
    return tuple(
        vote
        for name, reply in zip(prompt.adapters, replies, strict=True)
        for vote in read_ballot(slate, name, reply.text)
    )


def _recorded(out: Path) -> frozenset[str]:
    if not out.exists():
        return frozenset()
    lines = out.read_text(encoding="utf-8").splitlines()
    return frozenset(json.loads(line)["question"] for line in lines)
