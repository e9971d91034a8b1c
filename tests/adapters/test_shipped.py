from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters import convert
from adapters.training import trainer
from adapters.training.card import read_card
from adapters.training.check import (
    TOLERANCE,
    dequantize_gguf,
    llamacpp_positions,
    max_logprob_difference,
    peft_positions,
)
from adapters.training.corpus import read_corpus

SHIPPED = Path(convert.__file__).parent / "shipped"
NAMES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
FILES = {"adapter_model.safetensors", "adapter_config.json", "README.md", "card.json"}


def test_the_six_adapters_are_there():
    assert {"shell", "python", "sql", "cpp", "chat-fr", "spice"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_is_small_complete_and_better_than_the_base(name):
    folder = SHIPPED / name
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "adapter_model.safetensors").stat().st_size <= 4_000_000
    card = read_card(folder)
    assert card.domain == name
    assert card.adapter_perplexity < card.base_perplexity
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
    config = convert.read_peft_config(SHIPPED / name)
    assert config["base_model_name_or_path"] == trainer.BASE_NAME
    assert set(config["target_modules"]) == set(trainer.TARGET_MODULES)
    assert config["inference_mode"]
    text = (SHIPPED / name / "adapter_config.json").read_text("utf-8")
    assert json.loads(text)["r"] == read_card(SHIPPED / name).rank


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_converts_for_the_base(name, base_gguf, tmp_path):
    convert.convert_peft_to_gguf(SHIPPED / name, base_gguf, tmp_path / "adapter.gguf")
    assert (tmp_path / "adapter.gguf").stat().st_size < 4_000_000


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_llamacpp_says_what_peft_says_and_does_not_without_the_permutation(
    base_gguf, tmp_path, monkeypatch
):
    from peft import PeftModel

    folder = SHIPPED / "shell"
    exact = tmp_path / "base.gguf"
    dequantize_gguf(base_gguf, exact)
    model, tokenizer = trainer.load_base(base_gguf)
    prompt = trainer.encode_prompt(tokenizer, "How do I list files larger than 100 MB?")
    expected = peft_positions(PeftModel.from_pretrained(model, folder).eval(), [prompt])
    prefixes = [position.prefix for position in expected]

    right = tmp_path / "right.gguf"
    convert.convert_peft_to_gguf(folder, base_gguf, right)
    found = llamacpp_positions(exact, right, prefixes)
    assert max_logprob_difference(expected, found) < TOLERANCE

    monkeypatch.setattr(convert, "permute_rows", lambda weight, heads: weight)
    wrong = tmp_path / "wrong.gguf"
    convert.convert_peft_to_gguf(folder, base_gguf, wrong)
    found = llamacpp_positions(exact, wrong, prefixes)
    assert max_logprob_difference(expected, found) > 5 * TOLERANCE
