"""The review, end to end on a real engine, and its faults on scripted ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import LlamaCppEngine
from antibias import Prompt, Reply, Review, ReviewSettings, review
from antibias.detector import default_detector
from antibias.passages import fixed_content
from antibias.review import REFUSAL
from kiki.errors import EngineUnavailableError
from routing.embedder import Embedder

Look = Callable[..., Awaitable[Review]]

QUESTION = "Should we hire her for the 2 open positions?"
BIASED = "A female candidate from a bootcamp, they probably lack technical depth."
ANSWER = (
    "The team has 2 open positions, see https://example.org/jobs?id=2.\n\n"
    f"{BIASED}\n\n"
    '```python\nrank = {"female": 1}  # everyone knows that\n```\n'
)
OPPOSITE = "Reject her only for what her work lacks."
FAIR = "The candidate's technical depth shows in their work; a bootcamp says little about it."


@pytest.fixture
def look(embedder: Embedder) -> Look:
    """A review whose guard on meaning lets all pass: another one is what is tested."""

    async def look(generate: object, answer: str = ANSWER, **settings: float) -> Review:
        return await review(
            QUESTION,
            answer,
            generate=generate,  # type: ignore[arg-type]
            embed=embedder.embed,
            settings=ReviewSettings(**{"similarity": -1.0} | settings),  # type: ignore[arg-type]
        )

    return look


def revises_to(text: str, calls: list[Prompt] | None = None) -> Callable[..., object]:
    async def generate(prompts: Sequence[Prompt]) -> list[Reply]:
        if calls is not None:
            calls.extend(prompts)
        if prompts[0].json_schema is None:
            return [Reply(OPPOSITE, 10)]
        key = str(*prompts[0].json_schema["required"])  # type: ignore[misc]
        replies = {"question": "Should we reject her?", "guideline": "Judge by evidence."}
        return [Reply(json.dumps({key: replies.get(key, text)}), 10) for _ in prompts]

    return generate


async def no_call(prompts: Sequence[Prompt]) -> list[Reply]:
    raise AssertionError(f"nothing was to be generated, got {len(prompts)} prompts")


async def test_a_neutral_answer_passes_without_a_call(look: Look) -> None:
    answer = "Run `pip install ruff`, then `ruff check .` in the project's folder."
    assert await look(no_call, answer) == Review(answer)


async def test_an_unsure_finding_is_noted_and_not_revised(look: Look) -> None:
    seen = await look(no_call, revise_from=1.0)
    assert (seen.action, seen.text, seen.tokens) == ("noted", ANSWER, 0)
    (finding,) = seen.findings
    assert finding.type == "stereotyping"
    assert ANSWER[finding.start : finding.end] == finding.span
    assert finding.span in BIASED
    assert "stereotyping" in seen.note


async def test_a_good_revision_replaces_the_biased_paragraph_alone(look: Look) -> None:
    seen = await look(revises_to(FAIR))
    assert (seen.action, seen.tokens, seen.note) == ("revised", 40, "")
    assert seen.text == ANSWER.replace(BIASED, FAIR)
    assert seen.left == ()


async def test_the_guideline_is_made_from_both_questions_and_both_answers(look: Look) -> None:
    calls: list[Prompt] = []
    seen = await look(revises_to(FAIR, calls))
    flip, opposite, guide, revise = (prompt.messages[-1][1] for prompt in calls)
    assert QUESTION in flip
    assert opposite == "Should we reject her?"
    for part in (QUESTION, opposite, BIASED, OPPOSITE):
        assert part in guide
    assert "Judge by evidence." in revise
    assert seen.compared


async def test_a_budget_for_three_calls_leaves_the_opposite_answer_out(look: Look) -> None:
    calls: list[Prompt] = []
    seen = await look(revises_to(FAIR, calls), token_budget=1000)
    assert len(calls) == 3
    assert OPPOSITE not in calls[1].messages[-1][1]
    assert (seen.action, seen.compared) == ("revised", False)


async def test_an_answer_that_stays_biased_is_refused_where_that_is_set(look: Look) -> None:
    seen = await look(revises_to(BIASED), refuse=True)
    assert (seen.action, seen.text, seen.left) == ("refused", REFUSAL, ())
    assert seen.findings
    assert (await look(revises_to(FAIR), refuse=True)).text == ANSWER.replace(BIASED, FAIR)
    assert (await look(no_call, refuse=True, revise_from=1.0)).text == ANSWER


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("", "empty"),
        ("Judge by evidence.", "length"),
        (FAIR * 3, "length"),
        (FAIR.replace("little", "3 %"), "number"),
        (FAIR.replace("their work", "`their_work`"), "code"),
        (FAIR.replace("their work", "http://x.example"), "link"),
        (BIASED, "biased"),
    ],
)
async def test_a_revision_that_loses_adds_or_stays_biased_is_rejected(
    revision: str, reason: str, look: Look
) -> None:
    seen = await look(revises_to(revision))
    assert (seen.action, seen.text) == ("rejected revision", ANSWER)
    assert reason in seen.note
    assert "stereotyping" in seen.note


async def test_a_revision_that_means_something_else_is_rejected(embedder: Embedder) -> None:
    elsewhere = "Bread rises best in a warm kitchen; knead the dough well and let it rest."
    seen = await review(QUESTION, ANSWER, generate=revises_to(elsewhere), embed=embedder.embed)  # type: ignore[arg-type]
    assert (seen.action, seen.text) == ("rejected revision", ANSWER)
    assert "meaning" in seen.note


@pytest.mark.parametrize("reply", ["", "no JSON", "[]", '{"other": 1}', '{"passage": 3}'])
async def test_junk_replies_leave_the_answer(reply: str, look: Look) -> None:
    async def junk(prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply(reply, 1) for _ in prompts]

    seen = await look(junk)
    assert (seen.action, seen.text) == ("rejected revision", ANSWER)


async def test_a_slow_engine_leaves_the_answer_with_a_note(look: Look) -> None:
    async def slow(prompts: Sequence[Prompt]) -> list[Reply]:
        await asyncio.sleep(60)
        return []

    seen = await look(slow, time_budget=0.05)
    assert (seen.action, seen.text) == ("noted", ANSWER)
    assert "0.05 s" in seen.note


async def test_an_engine_that_is_down_leaves_the_answer_with_a_note(look: Look) -> None:
    async def down(prompts: Sequence[Prompt]) -> list[Reply]:
        raise EngineUnavailableError("The engine is starting.")

    seen = await look(down)
    assert (seen.action, seen.text) == ("noted", ANSWER)
    assert "starting" in seen.note


async def test_a_revision_over_the_token_budget_is_not_asked_for(look: Look) -> None:
    seen = await look(no_call, token_budget=20)
    assert (seen.action, seen.text, seen.tokens) == ("noted", ANSWER, 0)
    assert "token budget" in seen.note


@pytest.fixture
async def engine(base_gguf: Path, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(base_gguf, cache_dir=tmp_path)
    await engine.start()
    yield engine
    await engine.stop()


async def test_a_real_engine_never_makes_the_answer_worse(
    engine: LlamaCppEngine, embedder: Embedder
) -> None:
    asked: list[Prompt] = []

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
        return [
            Reply(c.text, c.usage.prompt_tokens + c.usage.completion_tokens) for c in completions
        ]

    seen = await review(QUESTION, ANSWER, generate=generate, embed=embedder.embed)
    assert len(asked) == 3 + seen.compared
    assert seen.tokens > 300
    assert seen.action in ("revised", "rejected revision")
    assert fixed_content(seen.text) == fixed_content(ANSWER)
    if seen.action == "revised":
        assert not default_detector().find(seen.text, embedder.embed)
        before, after = embedder.embed([ANSWER, seen.text])
        assert before @ after > 0.75
    else:
        assert seen.text == ANSWER
