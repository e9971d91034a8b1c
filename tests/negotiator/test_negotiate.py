"""The negotiation, end to end on a real engine, and its faults on scripted ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import LlamaCppEngine
from kiki.budget import Budget
from kiki.errors import EngineError
from negotiator import Candidate, Generate, Panel, Prompt, Reply, Verdict, negotiate
from negotiator.ballot import CHOICES
from routing.embedder import Embedder
from tests.negotiator.script import (
    DIVIDED,
    SQL,
    TEA,
    TEN,
    Script,
    alike,
    apart,
    chooses,
    letters,
    no_call,
    says,
)


async def settle(
    script: Generate,
    judge: Generate | None = None,
    *,
    candidates: Sequence[Candidate] = (TEN, TEA),
    budget: Budget | None = None,
    **options: Any,
) -> Verdict:
    """CAMP alone; Catfish has its own tests."""
    panel = Panel(generate=script, embed=apart, judge=judge, catfish=False, **options)
    budget = budget or Budget(100_000, 5.0)
    return await negotiate("How do I bake?", candidates, panel, budget=budget, seed=7)


async def test_a_single_candidate_costs_nothing() -> None:
    verdict = await settle(no_call, candidates=[TEN])
    assert (verdict.how, verdict.text, verdict.tokens) == ("only one", TEN.text, 0)


async def test_identical_candidates_are_merged_and_cost_nothing() -> None:
    twin = Candidate(TEN.text.replace(" ", "\n "), ("sql",), 3)
    verdict = await settle(no_call, candidates=[TEN, twin])
    assert (verdict.how, verdict.text) == ("identical", TEN.text)
    assert verdict.authors == ("shell", "sql")


async def test_candidates_that_agree_are_not_voted_on() -> None:
    other = Candidate("So she has 18 left.\n#### 18", ("python",), 9)
    mine = Candidate("The answer is 18.", ("shell",), 5)
    verdict = await settle(no_call, candidates=[mine, other])
    assert (verdict.how, verdict.text, verdict.agreement) == ("agreement", mine.text, 1.0)


async def test_a_unanimous_panel_overrules_the_attending() -> None:
    votes = {name: {TEN.text: "REFUSE", TEA.text: "KEEP"} for name in ("shell", "python")}
    verdict = await settle(Script(votes, []))
    assert (verdict.how, verdict.text, verdict.authors) == ("consensus", TEA.text, ("python",))
    assert len(verdict.votes) == 4
    assert verdict.tokens == 20


async def test_a_panel_with_no_opinion_leaves_it_to_the_attending() -> None:
    votes = {name: {TEN.text: "NEUTRAL", TEA.text: "NEUTRAL"} for name in ("shell", "python")}
    verdict = await settle(Script(votes, []))
    assert (verdict.how, verdict.text) == ("attending", TEN.text)


async def test_a_divided_panel_goes_to_the_judge_in_both_orders() -> None:
    script = Script(DIVIDED, [chooses(TEA.text), chooses(TEA.text)])
    verdict = await settle(script)
    assert (verdict.how, verdict.text, verdict.tokens) == ("arbitration", TEA.text, 40)
    first, second = (list(letters(prompt)) for prompt in script.judged)
    assert first == second[::-1]
    assert "shell" not in str(script.judged)


async def test_a_verdict_that_follows_the_order_is_judged_again_with_the_analysis() -> None:
    script = Script(
        DIVIDED, [chooses(TEN.text), chooses(TEA.text), chooses(TEA.text), chooses(TEA.text)]
    )
    verdict = await settle(script)
    assert (verdict.how, verdict.text) == ("arbitration", TEA.text)
    assert "followed the place" in script.judged[2].messages[-1][1]


async def test_a_verdict_that_keeps_following_the_order_leaves_the_attending() -> None:
    script = Script(DIVIDED, [chooses(TEN.text), chooses(TEA.text)] * 2)
    verdict = await settle(script)
    assert (verdict.how, verdict.text) == ("attending", TEN.text)
    assert "order" in verdict.note


@pytest.mark.parametrize(
    "reply",
    ["", "no JSON", "[]", "{}", '{"winner": "Z"}', '{"winner": ["A"]}', '{"winner": null}'],
)
async def test_a_judge_that_names_no_candidate_leaves_the_attending(reply: str) -> None:
    verdict = await settle(Script(DIVIDED, [chooses(TEA.text), says(reply)]))
    assert (verdict.how, verdict.text) == ("attending", TEN.text)


async def test_a_judge_that_takes_all_the_time_leaves_the_best_so_far() -> None:
    async def slow(prompts: Sequence[Prompt]) -> list[Reply]:
        await asyncio.sleep(60)
        return []

    budget = Budget(100_000, 0.05)
    verdict = await settle(Script(DIVIDED, []), slow, budget=budget)
    assert (verdict.how, verdict.text, verdict.tokens) == ("budget", TEN.text, 20)
    assert "0.05 s" in verdict.note
    assert budget.exhausted == "time"


async def test_a_judge_that_fails_leaves_the_attending() -> None:
    async def broken(prompts: Sequence[Prompt]) -> list[Reply]:
        raise EngineError("The engine failed: out of memory")

    verdict = await settle(Script(DIVIDED, []), broken)
    assert (verdict.how, verdict.text) == ("attending", TEN.text)
    assert "out of memory" in verdict.note


async def test_specialists_that_answer_junk_have_no_vote() -> None:
    async def junk(prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply('{"A": {"vote": "MAYBE"}, "Q": {"vote": "KEEP"}}', 5) for _ in prompts]

    verdict = await settle(junk)
    assert (verdict.how, verdict.text) == ("attending", TEN.text)
    assert {vote.choice for vote in verdict.votes} == {"NEUTRAL"}


async def test_votes_over_the_token_budget_are_not_asked_for() -> None:
    budget = Budget(50, 5.0)
    verdict = await settle(no_call, budget=budget)
    assert (verdict.how, verdict.text, verdict.tokens) == ("budget", TEN.text, 0)
    assert budget.state()["exhausted"] == "tokens"


async def test_a_judge_over_the_token_budget_leaves_the_draft_with_the_most_votes() -> None:
    votes = {
        "shell": {TEN.text: "REFUSE", TEA.text: "KEEP", SQL.text: "REFUSE"},
        "python": {TEN.text: "REFUSE", TEA.text: "KEEP", SQL.text: "KEEP"},
        "sql": {TEN.text: "KEEP", TEA.text: "NEUTRAL", SQL.text: "KEEP"},
    }
    script = Script(votes, [])
    script.tokens = 600
    verdict = await settle(script, candidates=[TEN, TEA, SQL], budget=Budget(2000, 5.0))
    assert (verdict.how, verdict.text) == ("budget", TEA.text)


async def test_the_deep_judge_decides_where_drafts_hardly_agree() -> None:
    plain, deep = Script(DIVIDED, []), Script(DIVIDED, [chooses(TEA.text)] * 2)
    verdict = await settle(plain, plain, deep_judge=deep)
    assert (verdict.judge, verdict.text) == ("deep judge", TEA.text)


async def test_a_domain_may_ask_for_the_deep_judge_whatever_the_agreement() -> None:
    plain, deep = Script(DIVIDED, [chooses(TEN.text)] * 2), Script(DIVIDED, [chooses(TEA.text)] * 2)
    used = []
    for asks in (False, True):
        panel = Panel(plain, alike, plain, deep_judge=deep, deep=asks, catfish=False)
        verdict = await negotiate("q", [TEN, TEA], panel, budget=Budget(100_000, 5), seed=7)
        used.append((verdict.judge, verdict.text))
    assert used == [("judge", TEN.text), ("deep judge", TEA.text)]


async def test_the_seed_alone_decides_the_order_of_the_drafts() -> None:
    seen: list[tuple[str, ...]] = []

    async def watch(prompts: Sequence[Prompt]) -> list[Reply]:
        seen.append(tuple(letters(prompts[0])))
        return [Reply("", 0) for _ in prompts]

    for seed in (*range(12), 0):
        panel = Panel(generate=watch, embed=apart, catfish=False)
        await negotiate("q", [TEN, TEA], panel, budget=Budget(10_000, 5.0), seed=seed)
    assert seen[0] == seen[-1]
    assert len(set(seen)) == 2


@pytest.fixture
async def engine(base_gguf: Path, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(base_gguf, cache_dir=tmp_path)
    await engine.start()
    yield engine
    await engine.stop()


async def test_a_real_panel_votes_and_a_real_judge_rules(
    engine: LlamaCppEngine, embedder: Embedder
) -> None:
    asked: list[Prompt] = []
    replies: list[str] = []

    async def generate(prompts: Sequence[Prompt]) -> list[Reply]:
        asked.extend(prompts)
        requests = [
            GenerateRequest(
                tuple(Message(role, content) for role, content in prompt.messages),  # type: ignore[arg-type]
                sampling=Sampling(
                    max_tokens=prompt.max_tokens,
                    temperature=prompt.temperature,
                    json_schema=prompt.json_schema,
                ),
            )
            for prompt in prompts
        ]
        completions = await complete(engine, requests)
        replies.extend(completion.text for completion in completions)
        return [
            Reply(c.text, c.usage.prompt_tokens + c.usage.completion_tokens) for c in completions
        ]

    verdict = await negotiate(
        "How do I bake bread?",
        [TEN, TEA],
        Panel(generate=generate, embed=embedder.embed),
        budget=Budget(8000, 120),
        seed=1,
    )
    assert verdict.agreement < 0.5
    assert verdict.text in [candidate.text for candidate in verdict.candidates]
    assert verdict.how in ("consensus", "attending", "arbitration", "dissent")
    assert verdict.gate is not None
    assert [prompt.adapter for prompt in asked[:2]] == ["shell", "python"]
    assert [(vote.specialist, vote.candidate) for vote in verdict.votes].count(("shell", 0)) == 1
    for reply in replies[:2]:
        ballots = json.loads(reply)
        assert sorted(ballots) == ["A", "B"]
        assert {entry["vote"] for entry in ballots.values()} <= set(CHOICES)
    assert verdict.tokens > 0
