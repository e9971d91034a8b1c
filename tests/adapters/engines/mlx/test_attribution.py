"""Integrated gradients against sums by hand, and the vote on what neurons are kept."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import StopSequences
from mlx_lm.models.base import create_attention_mask

from adapters.engines.mlx.attribution import STEPS, Attribution, Question, choose, find_neurons
from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.model import Base, load_base
from adapters.engines.mlx.slots import Slots
from adapters.engines.mlx.tiny import random_model
from adapters.mix import BASE
from tests.adapters.engines.mlx.serving import write_base
from tests.adapters.engines.mlx.test_amplifying import tiny_llama

PROMPT = [5, 80, 31, 7]
TARGET = 11


def base_of(model) -> Base:
    return Base(model, Slots.patch(model), None, StopSequences([[0]]), MlxConfig())


def test_scores_are_the_activation_times_the_mean_gradient() -> None:
    """On the last block of a model everything after it is linear but the norm and the softmax,
    so that the probability for any activation can be written down, and its slope measured."""
    model = tiny_llama()
    base = base_of(model)
    name = "layers.1.mlp.down_proj"
    block = model.model.layers[1]

    x = model.model.embed_tokens(mx.array([PROMPT]))
    mask = create_attention_mask(x, return_array=True)
    x = model.model.layers[0](x, mask)
    h = block.self_attn(block.input_layernorm(x), mask) + x
    normed = block.post_attention_layernorm(h)
    mlp = block.mlp
    gate = mlp.gate_proj(normed)
    inner = gate * mx.sigmoid(gate) * mlp.up_proj(normed)
    activation = np.array(inner[0, -1], np.float64)
    stream = np.array(h[0, -1], np.float64)
    down = np.array(mlp.down_proj.weight, np.float64)
    norm = np.array(model.model.norm.weight, np.float64)
    head = np.array(model.model.embed_tokens.weight, np.float64)

    def probability(values: np.ndarray) -> float:
        out = stream + down @ values
        out = out / np.sqrt((out**2).mean() + 1e-6) * norm
        logits = head @ out
        powers = np.exp(logits - logits.max())
        return float(powers[TARGET] / powers.sum())

    expected = np.zeros_like(activation)
    for neuron in range(len(activation)):
        step = np.zeros_like(activation)
        step[neuron] = 1e-5
        for part in np.linspace(0, 1, STEPS):
            at = part * activation
            slope = (probability(at + step) - probability(at - step)) / 2e-5
            expected[neuron] += activation[neuron] * slope / STEPS
    scores = Attribution(base, PROMPT).scores(TARGET)[name]
    assert np.abs(scores - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("make", [tiny_llama, random_model], ids=["dense", "experts"])
def test_scores_add_up_to_what_the_block_does_to_the_probability(make) -> None:
    """The completeness of integrated gradients (Sundararajan et al. 2017): their sum is the
    probability with the block's activations less that without. On the last block alone: below it
    a mixture of experts jumps where other experts are chosen."""
    base = base_of(make())
    attribution = Attribution(base, PROMPT)
    scores = attribution.scores(TARGET, steps=200)
    before = mx.array([PROMPT[:-1]])
    last = max(scores).rsplit(".mlp.", 1)[0]
    for name, each in scores.items():
        if not name.startswith(last):
            continue
        ends = []
        for part in (0.0, 1.0):
            cache = base.new_cache()
            base.slots.use([BASE])
            base.model(before, cache=cache)
            base.slots.scale({name: mx.full((1, *base.slots.neurons(name)), part)}, rows=1)
            logits = base.model(mx.array([PROMPT[-1:]]), cache=cache)[0, -1]
            ends.append(float(mx.softmax(logits)[TARGET]))
        assert each.shape == base.slots.neurons(name)
        assert abs(each.sum() - (ends[1] - ends[0])) < 2e-2 * max(abs(ends[1] - ends[0]), 1e-5)


def test_experts_that_were_not_chosen_score_nothing() -> None:
    base = base_of(random_model())
    scores = Attribution(base, PROMPT).scores(TARGET)
    routed = scores["layers.0.mlp.switch_mlp.down_proj"]
    assert (np.abs(routed).max(axis=1) > 0).sum() == 4  # of 8 experts


def test_afterwards_the_model_is_as_it_was() -> None:
    model = tiny_llama()
    base = base_of(model)
    bare = model(mx.array([PROMPT]))
    Attribution(base, PROMPT).scores(TARGET)
    base.slots.use([BASE])
    assert mx.array_equal(model(mx.array([PROMPT])), bare)
    assert not model.training


def test_neurons_are_kept_above_a_tenth_of_the_highest_in_over_49_of_100_questions() -> None:
    def question(*first: float) -> dict[str, np.ndarray]:
        return {"a": np.array(first), "b": np.array([1.0, -5.0])}

    high = [question(0.11, 0.1, 0.2)] * 49
    low = [question(0.09, 0.9, -0.2)] * 51
    kept = choose([*high, *low])
    assert kept["a"].tolist() == [False, True, False]
    assert kept["b"].tolist() == [True, False]
    one_more = choose([*high, question(0.11, 0.1, 0.2), *low[1:]])
    assert one_more["a"].tolist() == [True, True, True]


def test_neurons_are_found_on_a_whole_model_folder(tmp_path) -> None:
    base = load_base(write_base(tmp_path, 4), MlxConfig())
    told = []
    questions = [Question("Is a hasty judgement of a group biased?", True)] * 2
    found = find_neurons(base, questions, lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]
    assert found.questions == 2
    assert found.right in (0, 2)
    assert sum(int(marks.sum()) for marks in found.marks.values()) > 0
