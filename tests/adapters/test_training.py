from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.convert import convert_peft_to_gguf, read_peft_config, read_safetensors
from adapters.training import list_domains, train_adapter, trainer
from adapters.training.card import CARD_FILE, find_sources, read_card, write_card
from adapters.training.check import Position, max_logprob_difference
from adapters.training.corpus import CORPORA, Row, read_corpus
from adapters.training.docs_pairs import extract_pairs
from adapters.training.html_blocks import parse_blocks, render_answer
from kiki.errors import AdapterError

# peft and transformers warn about each other's names; nothing here calls them.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def write_rows(folder: Path, rows: list[Row], domain: str = "tiny") -> Path:
    lines = [
        json.dumps({"prompt": r.prompt, "answer": r.answer, "source": r.source, "group": r.group})
        for r in rows
    ]
    folder.mkdir(exist_ok=True)
    (folder / f"{domain}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def tiny_corpora(tmp_path: Path) -> Path:
    """Twelve real shell rows, four of them held out."""
    shell = read_corpus("shell")
    return write_rows(tmp_path / "corpora", [*shell.training[:8], *shell.held_out[:4]])


@pytest.mark.parametrize("domain", list_domains())
def test_a_shipped_corpus_splits_by_group_and_its_licences_are_known(domain):
    corpus = read_corpus(domain)
    trained = {row.group for row in corpus.training}
    held_out = {row.group for row in corpus.held_out}
    assert trained.isdisjoint(held_out)
    assert len(corpus.held_out) >= 20
    assert find_sources(corpus.sources)
    assert (CORPORA / f"{domain}.jsonl").stat().st_size <= 600_000


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(0, 40)), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_the_split_depends_on_the_group_alone(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("corpus")
    anchors = read_corpus("shell")
    rows = [anchors.training[0], anchors.held_out[0]]
    rows += [Row(f"p{text}", "a", "kiki examples", f"group {group}") for text, group in drawn]
    once = read_corpus("tiny", folder=write_rows(folder, rows))
    again = read_corpus("tiny", folder=write_rows(folder, rows[::-1]))
    assert set(once.held_out) == set(again.held_out)
    assert {r.group for r in once.held_out}.isdisjoint({r.group for r in once.training})
    assert len(once.held_out) + len(once.training) == len(rows)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 isn't JSON"),
        ("[]", "line 1 isn't a JSON object"),
        ('{"prompt": "a", "source": "s"}', "no text under 'answer'"),
        ('{"prompt": " ", "answer": "b", "source": "s"}', "no text under 'prompt'"),
        ('{"prompt": "a", "answer": "b"}', "no text under 'source'"),
        ("", "0 training and 0 held-out rows"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(line, said, tmp_path):
    (tmp_path / "wrong.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(AdapterError, match=said):
        read_corpus("wrong", folder=tmp_path)


def test_an_unknown_domain_lists_the_known_ones():
    with pytest.raises(AdapterError, match=r"no corpus for 'cobol'.*shell"):
        read_corpus("cobol")


def test_text_of_an_unknown_licence_is_refused():
    with pytest.raises(AdapterError, match="licence of the training text 'somewhere'"):
        find_sources(("somewhere",))


PAGE = """<section><h2>2.1. Copying files<a class="headerlink">¶</a></h2>
<p>The <code>shutil</code> module copies
whole files.</p><div class="versionadded"><p>Added in 3.3.</p></div>
<p>For example:</p><pre>import shutil
shutil.copy("a", "b")</pre></section>
<dl><dt class="sig" id="shutil.move">shutil.move(src, dst)</dt><dd><p>Move a file.</p></dd></dl>"""


def test_a_documentation_page_becomes_blocks_without_its_notes():
    blocks = [(block.kind, block.text, block.name) for block in parse_blocks(PAGE)]
    assert blocks == [
        ("heading", "2.1. Copying files", ""),
        ("text", "The `shutil` module copies whole files.", ""),
        ("text", "For example:", ""),
        ("code", 'import shutil\nshutil.copy("a", "b")', ""),
        ("definition", "shutil.move(src, dst)", "shutil.move"),
        ("text", "Move a file.", ""),
    ]


def test_an_answer_that_is_cut_does_not_announce_code_it_lacks():
    body = parse_blocks(PAGE)[1:4]
    whole = render_answer(body, language="python", limit=500)
    assert whole.endswith('```python\nimport shutil\nshutil.copy("a", "b")\n```')
    cut = render_answer(body, language="python", limit=60)
    assert cut == "The `shutil` module copies whole files."


def test_pairs_ask_about_a_page_and_answer_in_its_words(tmp_path):
    (tmp_path / "library").mkdir()
    page = PAGE.replace("whole files.", "whole files. " + "It keeps their permissions too. " * 4)
    (tmp_path / "library" / "shutil.html").write_text(page, encoding="utf-8")
    (row,) = extract_pairs("python", tmp_path)
    assert "copying files" in row.prompt
    assert row.answer.startswith("The `shutil` module copies whole files.")
    assert (row.source, row.group) == ("python3.11-doc library/shutil.html", "library/shutil")


def test_the_difference_is_the_worst_one_and_an_unlisted_token_counts_as_the_last():
    ours = [Position((1,), {5: -0.1, 6: -2.0}), Position((1, 5), {7: -0.5, 8: -3.0})]
    theirs = [Position((1,), {5: -0.3, 6: -2.1}), Position((1, 5), {7: -0.5, 9: -4.0})]
    assert max_logprob_difference(ours, theirs) == pytest.approx(1.0)


def test_two_steps_of_training_give_a_checked_adapter_that_converts(
    tiny_corpora, base_gguf, tmp_path
):
    out = tmp_path / "tiny"
    result = train_adapter(
        "tiny", out=out, base_gguf=base_gguf, steps=2, progress=False, corpora=tiny_corpora
    )

    assert (result.domain, result.out, result.rows, result.held_out_rows) == ("tiny", out, 8, 4)
    assert result.adapter_perplexity < result.base_perplexity
    assert 0 <= result.max_logprob_difference < 0.01
    card = read_card(out)
    assert (card.steps, card.seed, card.rank) == (2, 0, read_peft_config(out)["r"])
    assert card.data_sha256 == read_corpus("tiny", folder=tiny_corpora).sha256

    convert_peft_to_gguf(out, base_gguf, tmp_path / "tiny.gguf")
    converted = GGUFReader(tmp_path / "tiny.gguf").tensors
    weights = read_safetensors(out / "adapter_model.safetensors")
    assert len(converted) == len(weights) == 30 * 4 * 2
    assert any(np.abs(tensor.data).max() > 0 for tensor in converted if "lora_b" in tensor.name)

    (out / CARD_FILE).write_text('{"domain": "tiny"}', encoding="utf-8")
    with pytest.raises(AdapterError, match=r"lacks .*base_perplexity"):
        read_card(out)
    write_card(replace(card, seed=7), out)
    assert read_card(out) == replace(card, seed=7)


def test_an_adapter_that_does_not_beat_the_base_is_not_written(
    tiny_corpora, base_gguf, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "LEARNING_RATE", 0.0)
    with pytest.raises(AdapterError, match="it isn't kept"):
        train_adapter(
            "tiny",
            out=tmp_path / "tiny",
            base_gguf=base_gguf,
            steps=1,
            progress=False,
            corpora=tiny_corpora,
        )
    assert not (tmp_path / "tiny").exists()


def test_no_steps_are_refused(base_gguf, tmp_path):
    with pytest.raises(AdapterError, match="steps is 0"):
        train_adapter("shell", out=tmp_path / "x", base_gguf=base_gguf, steps=0)
