"""Stage 6 as a caller sees it, its settings, and the commands around it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from adapters.engines.base import Delta, GenerateRequest, Message, Sampling, Usage
from antibias.detector import default_detector
from antibias.review import REFUSAL, ReviewSettings
from gateway.cli.antibias import command
from gateway.engines import Choice, build_engine
from gateway.settings import load_settings
from gateway.stages.antibias import AntibiasStage
from gateway.turn import Ask, Options, SecondLook, Turn
from kiki.budget import Budget
from kiki.errors import EvaluationError, SettingsError
from memory import Owner
from routing.embedder import Embedder

BIASED = "A female candidate from a bootcamp, they probably lack technical depth."
FAIR = "The candidate's technical depth shows in their work; a bootcamp says little about it."


class Scripted:
    """An engine that answers each step of DeFrame with a given text; keeps what it was asked."""

    def __init__(self, revision: str, *, amplifies: bool) -> None:
        self.capabilities = SimpleNamespace(amplifies=amplifies)
        self.asked: list[GenerateRequest] = []
        self._replies = {"question": "Should we reject her?", "guideline": "Judge by evidence."}
        self._revision = revision

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        for row, request in enumerate(requests):
            self.asked.append(request)
            text = "Only for what her work lacks."
            if (schema := request.sampling.json_schema) is not None:
                key = str(*schema["required"])  # type: ignore[misc]
                text = json.dumps({key: self._replies.get(key, self._revision)})
            yield Delta(row, text)
            yield Delta(row, finish_reason="stop", usage=Usage(10, 5))


def turn(*, stream: bool = False, tokens: int = 6000) -> Turn:
    ask = Ask(
        id="chatcmpl-1",
        model="micro-kiki",
        owner=Owner("a", "b"),
        conversation="c",
        messages=(Message("user", "Should we hire her?"),),
        sampling=Sampling(),
        options=Options(),
        created=0.0,
        stream=stream,
    )
    look = SecondLook(antibias=True, budget=Budget(tokens, 60.0))
    return Turn(ask, look=look, answer=f"Two things.\n\n{BIASED}")


async def reviewed(
    engine: Scripted, asked: Turn, embedder: Embedder, **settings: Any
) -> dict[str, Any]:
    stage = AntibiasStage(engine, embedder.embed, ReviewSettings(**settings))  # type: ignore[arg-type]
    decision: dict[str, Any] = {}
    await stage.run(asked, decision)
    return decision


@pytest.mark.parametrize("amplifies", [True, False])
async def test_explain_tells_what_was_found_what_is_left_and_what_it_cost(
    embedder: Embedder, amplifies: bool
) -> None:
    engine, asked = Scripted(FAIR, amplifies=amplifies), turn()
    decision = await reviewed(engine, asked, embedder, similarity=-1.0)
    assert asked.answer == f"Two things.\n\n{FAIR}"
    (finding,) = decision.pop("findings")
    assert finding.pop("confidence") > 0.9
    assert finding == {
        "type": "stereotyping",
        "span": BIASED,
        "start": 13,
        "end": 13 + len(BIASED),
    }
    budget = decision.pop("budget")
    assert (budget["tokens"], budget["exhausted"]) == (60, None)
    assert decision == {
        "action": "revised",
        "left": [],
        "compared": True,
        "knowbias": amplifies,
        "tokens": 60,
        "note": "",
    }


async def test_every_call_of_the_revision_asks_for_amplified_neurons(embedder: Embedder) -> None:
    engine = Scripted(FAIR, amplifies=True)
    await reviewed(engine, turn(), embedder)
    assert len(engine.asked) == 4
    assert all(request.amplify for request in engine.asked)


async def test_what_has_streamed_is_noted_and_never_rewritten(embedder: Embedder) -> None:
    engine, asked = Scripted(FAIR, amplifies=False), turn(stream=True)
    before = asked.answer
    decision = await reviewed(engine, asked, embedder, refuse=True)
    assert (asked.answer, engine.asked) == (before, [])
    assert decision["action"] == "noted"
    assert decision["left"] == decision["findings"] != []
    assert "stereotyping" in decision["note"]


async def test_what_stays_biased_is_refused_where_that_is_set(embedder: Embedder) -> None:
    asked = turn()
    decision = await reviewed(Scripted(BIASED, amplifies=False), asked, embedder, refuse=True)
    assert (decision["action"], asked.answer) == ("refused", REFUSAL)
    assert decision["findings"]
    assert default_detector().find(REFUSAL, embedder.embed) == ()


async def test_the_turns_budget_is_the_reviews(embedder: Embedder) -> None:
    engine, asked = Scripted(FAIR, amplifies=False), turn(tokens=30)
    decision = await reviewed(engine, asked, embedder)
    assert (decision["action"], engine.asked) == ("noted", [])
    assert "token budget" in decision["note"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("antibias_threshold", 0.3, "KIKI_ANTIBIAS_THRESHOLD"),
        ("knowbias_lambda", -1, "KIKI_KNOWBIAS_LAMBDA"),
        ("knowbias_probe", "/nowhere/probe.safetensors", "no file /nowhere/probe"),
    ],
)
def test_a_setting_that_can_not_hold_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(**{name: value})


def test_a_probe_is_refused_on_an_engine_that_gives_no_access_to_neurons(tmp_path: Path) -> None:
    for name in ("probe.safetensors", "model.gguf"):
        (tmp_path / name).touch()
    settings = load_settings(knowbias_probe=tmp_path / "probe.safetensors")
    with pytest.raises(SettingsError, match="llamacpp can't amplify neurons") as refused:
        build_engine(settings, Choice("llamacpp", ""), tmp_path / "model.gguf")
    assert "engine = mlx" in str(refused.value.fix)


def test_probing_a_model_writes_the_file_that_its_engine_takes(tmp_path: Path) -> None:
    probe = pytest.importorskip("adapters.engines.mlx.probe", reason="MLX is not installed")
    from adapters.engines.mlx.config import MlxConfig
    from adapters.engines.mlx.model import load_base
    from tests.adapters.engines.mlx.serving import write_base

    model, out = write_base(tmp_path, 4), tmp_path / "probe.safetensors"
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Is a rumour a proof?", "answer": "no"}\n')
    arguments = ["probe", "--model", str(model), "--out", str(out), "--json"]
    result = CliRunner().invoke(command, [*arguments, "--questions", str(questions)])
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    assert told["neurons"] == sum(told["modules"].values()) == probe.read_probe(out).neurons > 0
    assert (told["model"], told["questions"]) == (model.name, 1)
    load_base(model, MlxConfig(probe=out))


@pytest.mark.parametrize("line", ["", "no JSON", '{"question": "Is it?", "answer": "maybe"}'])
def test_questions_that_are_none_are_refused_by_line(tmp_path: Path, line: str) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(line)
    arguments = ["probe", "--model", "x", "--out", str(tmp_path / "o"), "--questions"]
    result = CliRunner().invoke(command, [*arguments, str(questions)])
    assert isinstance(result.exception, EvaluationError)
    assert ("line 1" in str(result.exception)) == bool(line)


def test_the_packaged_questions_are_75_and_ask_for_both_answers() -> None:
    from gateway.cli.antibias import _questions

    asked = _questions(None)
    assert len({text for text, _ in asked}) == len(asked) == 75
    assert abs(sum(yes for _, yes in asked) - 37.5) < 2


def test_pairs_that_are_none_are_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"biased_prompt": "a"}\n')
    result = CliRunner().invoke(command, ["eval", str(pairs)])
    assert isinstance(result.exception, EvaluationError)
    assert "pairs.jsonl, line 1" in str(result.exception)
