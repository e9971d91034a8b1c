"""A judge from outside: asked over HTTP, and whatever it does, an answer is sent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from adapters.engines.base import Message, Sampling
from gateway.asking import UrlModel
from gateway.judging import asked, judging, within
from gateway.settings import load_settings
from gateway.turn import Ask, Options, Turn
from kiki.budget import Budget
from kiki.errors import EngineUnavailableError, SettingsError
from memory import Owner
from negotiator import Generate, Panel, Prompt, Reply, Verdict, negotiate
from tests.gateway.judge_upstream import Fault, upstream
from tests.negotiator.script import DIVIDED, TEA, TEN, Script, apart


def turn() -> Turn:
    ask = Ask(
        id="chatcmpl-1",
        model="micro-kiki",
        owner=Owner("a", "b"),
        conversation="c",
        messages=(Message("user", "How do I bake?"),),
        sampling=Sampling(),
        options=Options(),
        created=0.0,
    )
    return Turn(ask)


async def judged_by(url: str, seconds: float = 30) -> Verdict:
    model = UrlModel(url, setting="judge")
    judge = within(asked(model, turn()), seconds)
    panel = Panel(Script(DIVIDED, []), apart, judge=judge, catfish=False)
    budget = Budget(100_000, 60)
    verdict = await negotiate("How do I bake?", [TEN, TEA], panel, budget=budget, seed=7)
    await model.close()
    return verdict


@pytest.mark.parametrize("letter", ["A", "B"])
async def test_a_judge_at_a_url_decides(letter: str) -> None:
    said = json.dumps({"reason": "it answers", "winner": letter})
    async with upstream(None, said) as url:
        verdict = await judged_by(url)
    assert (verdict.how, verdict.judge) == ("arbitration", "judge")
    assert verdict.tokens == 20 + 2 * 7


@pytest.mark.parametrize("fault", ["junk", "no body", "an error", "hang up"])
async def test_a_judge_that_fails_leaves_the_attendings_draft(fault: Fault) -> None:
    async with upstream(fault) as url:
        verdict = await judged_by(url)
    assert (verdict.how, verdict.text) == ("attending", TEN.text)
    assert url not in verdict.note


async def test_a_judge_that_votes_for_a_candidate_that_isnt_there_leaves_the_attendings() -> None:
    async with upstream(None, json.dumps({"reason": "best", "winner": "C"})) as url:
        verdict = await judged_by(url)
    assert (verdict.how, verdict.text) == ("attending", TEN.text)


async def test_a_silent_judge_is_given_up_and_the_attendings_draft_sent() -> None:
    async with upstream("silence") as url:
        verdict = await judged_by(url, seconds=0.05)
    assert (verdict.how, verdict.text) == ("attending", TEN.text)
    assert "0.05 s" in verdict.note


async def test_a_judge_that_refuses_the_connection_leaves_the_attendings_draft() -> None:
    verdict = await judged_by("http://127.0.0.1:9/v1")
    assert (verdict.how, verdict.text) == ("attending", TEN.text)
    assert "judge names can't be reached" in verdict.note


async def test_the_name_after_the_url_is_the_model_that_is_asked() -> None:
    async with upstream(None, "yes") as url:
        model = UrlModel(f"{url}#other", setting="judge")
        said = await model.ask((("user", "?"),), json_schema=None, max_tokens=4)
        assert (said.text, said.tokens, model._model) == ("yes", 7, "other")
        await model.close()


async def test_the_judges_that_the_settings_name_are_opened() -> None:
    settings = load_settings(judge="http://127.0.0.1:9/v1", deep_judge="engine")
    async with judging(settings, engine=object()) as judges:  # type: ignore[arg-type]
        assert isinstance(judges.judge, UrlModel)
        assert judges.deep_judge is not None
    async with judging(load_settings(), engine=object()) as judges:  # type: ignore[arg-type]
        assert (judges.judge, judges.deep_judge) == (None, None)


async def test_a_judge_of_its_own_in_llama_cpp_answers_in_json(base_gguf: Path) -> None:
    settings = load_settings(judge=str(base_gguf))
    schema = {
        "type": "object",
        "properties": {"winner": {"enum": ["A", "B"]}},
        "required": ["winner"],
        "additionalProperties": False,
    }
    prompt = Prompt((("user", "A or B?"),), None, 40, schema)
    async with judging(settings, engine=object()) as judges:  # type: ignore[arg-type]
        assert judges.judge is not None
        judge = asked(judges.judge, turn())
        reply = await _once_it_is_there(judge, prompt)
    assert json.loads(reply.text)["winner"] in ("A", "B")
    assert reply.tokens > 0


async def _once_it_is_there(judge: Generate, prompt: Prompt) -> Reply:
    for _ in range(600):
        try:
            (reply,) = await judge([prompt])
        except EngineUnavailableError:  # it starts in the background
            await asyncio.sleep(0.2)
        else:
            return reply
    raise TimeoutError


@pytest.mark.parametrize("setting", ["judge", "deep_judge"])
@pytest.mark.parametrize("named", ["nobody", "missing.gguf", "ftp://host/v1"])
def test_a_judge_that_there_is_not_is_refused_with_the_fix(setting: str, named: str) -> None:
    with pytest.raises(SettingsError, match=setting):
        load_settings(**{setting: named})
