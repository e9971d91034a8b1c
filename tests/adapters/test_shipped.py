from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from adapters.catalog import SHIPPED
from adapters.forms import read_base_shape, read_lora, write_lora
from adapters.forms.folder import read_config
from adapters.recipes import load_recipe
from adapters.training import trainer
from adapters.training.card import read_card
from adapters.training.check import (
    TOLERANCE,
    llamacpp_positions,
    max_logprob_difference,
    peft_positions,
)
from adapters.training.corpus import read_corpus
from adapters.training.export import dequantize_gguf

NAMES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
PROMPTS = {
    "shell": "How do I list files larger than 100 MB?",
    "python": "Write a Python function that counts the words in a text.",
    "sql": "Find the three customers who spent the most.",
    "cpp": "Write a C++ function that reverses a string.",
    "chat-fr": "Comment annoncer à mon patron que je quitte l'entreprise ?",
    "spice": "Write a netlist for an RC low-pass filter.",
}
FILES = {"adapter_model.safetensors", "adapter_config.json", "README.md", "card.json"}


def test_the_six_adapters_are_there():
    assert set(NAMES) == set(PROMPTS)


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_is_small_complete_and_better_than_the_base(name):
    folder = SHIPPED / name
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "adapter_model.safetensors").stat().st_size <= 4_000_000
    card = read_card(folder)
    assert card.domain == name
    assert card.adapter_perplexity < card.base_perplexity
    assert card.max_logprob_difference is not None
    assert card.max_logprob_difference < TOLERANCE
    assert card.rows > 100
    assert card.held_out_rows >= 20
    assert all(source.licence for source in card.sources)
    readme = (folder / "README.md").read_text("utf-8")
    for told in (card.data_sha256, f"{card.adapter_perplexity:.2f}", card.licence, card.date):
        assert told in readme


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_was_trained_on_the_corpus_that_is_here(name):
    assert read_card(SHIPPED / name).data_sha256 == read_corpus(name).sha256


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_is_a_plain_peft_lora_of_the_base(name):
    config = read_config(SHIPPED / name)
    small = load_recipe(name).small
    assert config["base_model_name_or_path"] == small.base
    assert {f"self_attn.{module}" for module in config["target_modules"]} == set(small.modules)
    assert config["inference_mode"]
    text = (SHIPPED / name / "adapter_config.json").read_text("utf-8")
    assert json.loads(text)["r"] == read_card(SHIPPED / name).rank


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_converts_for_the_base(name, base_gguf, tmp_path):
    base = read_base_shape(base_gguf)
    write_lora(read_lora(SHIPPED / name), "gguf", tmp_path / "adapter.gguf", base=base)
    assert (tmp_path / "adapter.gguf").stat().st_size < 4_000_000


@pytest.fixture(scope="module")
def loaded(base_gguf) -> tuple[Any, Any]:
    """The base in torch with every shipped adapter on it, and the tokenizer."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers about each other's names
        base, tokenizer = trainer.load_base(base_gguf)
        model = PeftModel.from_pretrained(base, SHIPPED / NAMES[0], adapter_name=NAMES[0])
        for name in NAMES[1:]:
            model.load_adapter(SHIPPED / name, adapter_name=name)
    return model.eval(), tokenizer


def greedy_tokens(model: Any, prompt: list[int], length: int = 24) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        made = model.generate(input_ids=ids, max_new_tokens=length, do_sample=False)
    tokens: list[int] = made[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_writes_another_text_than_the_base(name, loaded):
    model, tokenizer = loaded
    prompt = trainer.encode_prompt(tokenizer, PROMPTS[name])
    model.set_adapter(name)
    own = greedy_tokens(model, prompt)
    with model.disable_adapter():
        assert greedy_tokens(model, prompt) != own


def test_llamacpp_says_what_peft_says_and_does_not_without_the_permutation(
    loaded, base_gguf, tmp_path, monkeypatch
):
    model, tokenizer = loaded
    model.set_adapter("shell")
    folder = SHIPPED / "shell"
    exact = tmp_path / "base.gguf"
    dequantize_gguf(base_gguf, exact)
    expected = peft_positions(model, [trainer.encode_prompt(tokenizer, PROMPTS["shell"])])
    prefixes = [position.prefix for position in expected]

    right = tmp_path / "right.gguf"
    base = read_base_shape(base_gguf)
    write_lora(read_lora(folder), "gguf", right, base=base)
    found = llamacpp_positions(exact, right, prefixes)
    assert max_logprob_difference(expected, found) < TOLERANCE

    monkeypatch.setattr("adapters.forms.rows.permute_rows", lambda weight, heads: weight)
    wrong = tmp_path / "wrong.gguf"
    write_lora(read_lora(folder), "gguf", wrong, base=base)
    found = llamacpp_positions(exact, wrong, prefixes)
    assert max_logprob_difference(expected, found) > 5 * TOLERANCE
