"""Training with mlx_lm, really run on the CPU: a random model of the large base's architecture."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from mlx_lm.utils import load

from adapters.engines.mlx.shapes import TINY
from adapters.engines.mlx.tiny import random_model, write_model
from adapters.forms import read_lora
from adapters.health import MOE_KINDS
from adapters.recipes import load_recipe
from adapters.training import Job, TrainingResult, plan_job, read_chat_folder, train_adapter
from adapters.training.card import read_card
from adapters.training.corpus import Message
from adapters.training.mlx_child import add_lora, encode_chat, refuse_quantised_experts
from adapters.training.mlx_fit import answer_loss, measure_perplexity
from adapters.training.mlx_job import MlxJob
from gateway.cli import cli
from kiki.errors import AdapterError

WORDS = ("resistor", "capacitor", "inductor", "diode", "transistor", "fuse")


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_model(folder, random_model(), TINY, None)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats with always the same answer, which even a random model learns in a few steps."""
    folder = tmp_path_factory.mktemp("components")
    for name, count in (("train", 6), ("valid", 3)):
        lines = [
            json.dumps({"messages": [
                {"role": "system", "content": "short"},
                {"role": "user", "content": word},
                {"role": "assistant", "content": "a part"},
            ]})
            for word in WORDS[:count]
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def job(tiny_base: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The recipe of a niche, but for what only a large base can take."""
    recipe = load_recipe("components")
    tiny = {"layers": 2, "learning_rate": 3e-2, "batch_rows": 2, "longest_row": 64}
    made = plan_job(
        recipe.model_copy(update={"full": recipe.full.model_copy(update=tiny)}),
        base=str(tiny_base),
        corpus=read_chat_folder(chats, "components"),
        out=tmp_path_factory.mktemp("adapters") / "components",
        small=False,
        steps=5,
    )
    return replace(made, checkpoint_every=2)


@pytest.fixture(scope="module")
def trained(job: Job) -> tuple[TrainingResult, list[float]]:
    """What training said, and the loss of each step."""
    losses: list[float] = []
    result = train_adapter(
        job, backend="mlx", licence="CC0-1.0", report=lambda step, loss: losses.append(loss)
    )
    return result, losses


def test_mlx_trains_an_adapter_that_has_the_recipes_rank_layers_and_modules(job, trained):
    result, losses = trained
    assert len(losses) == 5
    assert result.adapter_perplexity < result.base_perplexity
    assert (result.rows, result.held_out_rows, result.exit_code) == (6, 3, 0)
    lora = read_lora(job.out)
    assert (lora.rank, lora.alpha, lora.base) == (16, 16, "Qwen/Qwen3.6-35B-A3B")
    assert {weight.kind for weight in lora.weights.values()} == MOE_KINDS
    assert {weight.layer for weight in lora.weights.values()} == {2, 3}
    config = json.loads((job.out / "adapter_config.json").read_text())
    assert config["lora_parameters"]["scale"] == 1.0

    card = read_card(job.out)
    assert (card.backend, card.steps, card.layers, card.rank) == ("mlx", 5, 2, 16)
    assert card.sources[0].licence == "CC0-1.0"
    assert not job.work.exists()


def test_mlx_lm_loads_the_adapter_and_gives_the_perplexity_that_was_measured(
    job, trained, tiny_base
):
    result, _ = trained
    model, tokenizer = load(str(tiny_base), adapter_path=str(job.out))[:2]
    held_out = MlxJob.from_job(job, job.corpus.held_out, job.out).held_out
    rows = [encode_chat(tokenizer, chat, 64) for chat in held_out]
    assert measure_perplexity(model, rows, 2) == pytest.approx(result.adapter_perplexity, rel=1e-4)


def test_a_run_whose_process_was_killed_is_resumed_to_the_same_adapter(
    job, trained, tmp_path, monkeypatch
):
    children: list[subprocess.Popen[str]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            children.append(self)

    def kill_after_three(step: int, loss: float) -> None:
        if step == 3:
            children[-1].kill()

    monkeypatch.setattr(subprocess, "Popen", Watched)
    broken = replace(job, out=tmp_path / "components")
    with pytest.raises(AdapterError, match=r"ended by signal 9.*--resume"):
        train_adapter(broken, backend="mlx", report=kill_after_three)
    assert not broken.out.exists()

    steps: list[int] = []
    train_adapter(
        replace(broken, resume=True), backend="mlx", report=lambda step, loss: steps.append(step)
    )
    assert steps in ([3, 4, 5], [5])  # it may have reached the next checkpoint before it was killed
    expected, found = read_lora(job.out).weights, read_lora(broken.out).weights
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert np.array_equal(weight.a, found[name].a), name
        assert np.array_equal(weight.b, found[name].b), name


def test_what_the_base_lacks_is_said_before_training(job):
    wrong = job.hyper.model_copy(update={"layers": 32})
    with pytest.raises(AdapterError, match="adapts 32 layers; this base has 4"):
        add_lora(random_model(), wrong, seed=0)
    wrong = job.hyper.model_copy(update={"modules": ("self_attn.q_proj", "mlp.up_proj")})
    with pytest.raises(AdapterError, match=r"has no mlp\.up_proj"):
        add_lora(random_model(), wrong, seed=0)


def test_a_base_that_is_not_there_is_named(job):
    with pytest.raises(AdapterError, match=r"can't load the base '/nowhere/at-all'.*--base"):
        train_adapter(replace(job, base="/nowhere/at-all", out=job.out.parent / "x"), backend="mlx")


def test_a_base_with_quantised_experts_is_refused_with_the_reason():
    refuse_quantised_experts(random_model())
    with pytest.raises(AdapterError, match=r"experts are quantised.*corrupts the expert layers"):
        refuse_quantised_experts(random_model(bits=4))


def test_padding_and_prompt_do_not_count_in_the_loss(tiny_base):
    model, tokenizer = load(str(tiny_base))[:2]
    chat = (Message("user", "diode"), Message("assistant", "a part"))
    row = encode_chat(tokenizer, chat, 64)
    answer = tokenizer.decode(list(row.ids[row.answer_start :]))
    assert answer == "a part<|im_end|>"

    ids = mx.array([row.ids])
    logits = model(ids[:, :-1])
    chances = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    said = [
        chances[0, place - 1, row.ids[place]].item()
        for place in range(row.answer_start, len(row.ids))
    ]
    by_hand = float(np.exp(-np.mean(said)))
    assert measure_perplexity(model, [row], 1) == pytest.approx(by_hand, rel=1e-4)

    mask = mx.zeros(ids.shape)
    mask[:, row.answer_start :] = 1
    _, count = answer_loss(model, ids, mask)
    assert count.item() == len(row.ids) - row.answer_start


def test_the_command_trains_on_ones_own_chats_and_tells_the_angles_to_the_others(
    job, trained, tiny_base, chats, tmp_path
):
    arguments = ["--base", str(tiny_base), "--small", "--data", str(chats), "--licence", "CC0-1.0"]
    arguments += ["--steps", "3", "--prior-dir", str(job.out.parent), "--json"]
    out = tmp_path / "power"
    done = CliRunner().invoke(cli, ["adapters", "train", "power", "--out", str(out), *arguments])
    told = json.loads(done.stdout)
    assert (told["domain"], told["backend"], told["rows"]) == ("power", "mlx", 6)
    assert 0 <= told["angles"]["components"] <= 90
    assert done.exit_code == told["exit_code"]
    card = read_card(out)
    assert (card.base, card.licence, card.steps) == (tiny_base.name, "CC0-1.0", 3)
    assert card.data == f"from `{chats.name}`"
    assert f"6 rows from {chats}" in done.stderr
