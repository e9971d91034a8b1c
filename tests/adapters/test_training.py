from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from adapters.catalog import SHIPPED
from adapters.forms import read_base_shape, read_lora, write_lora
from adapters.forms.tensors import read_safetensors
from adapters.recipes import load_recipe
from adapters.training import (
    Job,
    list_domains,
    plan_job,
    read_chat_folder,
    train_adapter,
    trainer,
    training_lock,
)
from adapters.training.card import CARD_FILE, find_sources, read_card, write_card
from adapters.training.check import Position, max_logprob_difference
from adapters.training.checkpoint import State, start_state, write_whole
from adapters.training.corpus import CORPORA, Row, read_corpus
from adapters.training.docs_pairs import extract_pairs
from adapters.training.fit import CurvePoint
from adapters.training.html_blocks import parse_blocks, render_answer
from adapters.training.judge import require_healthy
from adapters.training.progress import Report, report_nothing
from adapters.training.rows import Encoded, curve_steps, learning_rate_share
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


def tiny_job(corpora: Path, base_gguf: Path, out: Path, steps: int) -> Job:
    return plan_job(
        load_recipe("shell"),
        base=str(base_gguf),
        corpus=read_corpus("tiny", folder=corpora),
        out=out,
        small=True,
        steps=steps,
    )


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
@settings(max_examples=25)
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
    result = train_adapter(tiny_job(tiny_corpora, base_gguf, out, steps=2))

    assert (result.domain, result.out, result.rows, result.held_out_rows) == ("shell", out, 8, 4)
    assert result.adapter_perplexity < result.base_perplexity
    assert result.max_logprob_difference is not None
    assert 0 <= result.max_logprob_difference < 0.01
    card = read_card(out)
    assert (card.steps, card.seed, card.rank) == (2, 0, read_lora(out).rank)
    assert card.data_sha256 == read_corpus("tiny", folder=tiny_corpora).sha256

    base = read_base_shape(base_gguf)
    write_lora(read_lora(out), "gguf", tmp_path / "tiny.gguf", base=base)
    converted = GGUFReader(tmp_path / "tiny.gguf").tensors
    weights = read_safetensors(out / "adapter_model.safetensors")
    assert len(converted) == len(weights) == 30 * 4 * 2
    assert any(np.abs(tensor.data).max() > 0 for tensor in converted if "lora_b" in tensor.name)

    (out / CARD_FILE).write_text('{"domain": "tiny"}', encoding="utf-8")
    with pytest.raises(AdapterError, match=r"lacks .*base_perplexity"):
        read_card(out)
    write_card(replace(card, seed=7), out)
    assert read_card(out) == replace(card, seed=7)


def test_an_adapter_that_does_not_beat_the_base_is_not_written(tiny_corpora, base_gguf, tmp_path):
    job = tiny_job(tiny_corpora, base_gguf, tmp_path / "tiny", steps=1)
    still = job.hyper.model_copy(update={"learning_rate": 0.0})
    with pytest.raises(AdapterError, match="it isn't kept"):
        train_adapter(replace(job, hyper=still))
    assert [path.name for path in tmp_path.iterdir()] == ["corpora"]


def test_no_steps_are_refused(tiny_corpora, base_gguf, tmp_path):
    with pytest.raises(AdapterError, match="steps is 0"):
        tiny_job(tiny_corpora, base_gguf, tmp_path / "x", steps=0)


@pytest.fixture
def small_model() -> Any:
    """A llama of two layers with random weights, and a fresh LoRA."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    return trainer.add_adapter(model, load_recipe("shell").small)


def interrupt_at(last: int) -> Report:
    def report(step: int, loss: float) -> None:
        if step == last:
            raise KeyboardInterrupt

    return report


def test_a_resumed_run_gives_the_same_adapter_as_an_uninterrupted_one(
    small_model, tiny_corpora, base_gguf, tmp_path
):
    rows = [Encoded(tuple(range(start, start + 9)), 4) for start in range(20)]
    whole = replace(tiny_job(tiny_corpora, base_gguf, tmp_path / "whole", 7), checkpoint_every=2)
    broken = replace(whole, out=tmp_path / "broken")
    models = {job.out.name: copy.deepcopy(small_model) for job in (whole, broken)}
    expected = trainer.fit_adapter(models["whole"], rows, rows[:3], whole, report_nothing)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit_adapter(models["broken"], rows, rows[:3], broken, interrupt_at(5))

    steps: list[int] = []
    found = trainer.fit_adapter(
        small_model,
        rows,
        rows[:3],
        replace(broken, resume=True),
        lambda step, loss: steps.append(step),
    )
    assert steps == [5, 6, 7]
    assert replace(found, seconds=0) == replace(expected, seconds=0)
    ours, theirs = small_model.state_dict(), models["whole"].state_dict()
    assert all(torch_equal(ours[name], theirs[name]) for name in theirs)


def torch_equal(one: Any, other: Any) -> bool:
    return np.array_equal(one.numpy(), other.numpy())


def test_a_checkpoint_is_used_only_on_request_and_only_by_its_own_run(tmp_path):
    assert start_state(tmp_path, "mine", resume=True) == State("mine")
    reached = State("mine", 4, 9.5, (CurvePoint(2, 8.5),), 1.25)
    tensors = {"weight.0": np.ones(3, np.float32)}
    write_whole(tmp_path, lambda path: save_file(tensors, path, reached.metadata()))
    assert start_state(tmp_path, "mine", resume=True) == reached
    with pytest.raises(AdapterError, match="Go on from it with --resume"):
        start_state(tmp_path, "mine", resume=False)
    with pytest.raises(AdapterError, match="that of another run"):
        start_state(tmp_path, "other", resume=True)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"torn")
    with pytest.raises(AdapterError, match="isn't a checkpoint"):
        start_state(tmp_path, "mine", resume=True)


def test_a_checkpoint_that_was_not_finished_leaves_the_last_one(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"whole")

    def run_out_of_disk(path: Path) -> None:
        path.write_bytes(b"ha")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path, run_out_of_disk)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == b"whole"


@pytest.mark.parametrize("change", [{"seed": 1}, {"base": "other"}])
def test_what_changes_the_adapter_changes_the_runs_fingerprint(
    change, tiny_corpora, base_gguf, tmp_path
):
    job = tiny_job(tiny_corpora, base_gguf, tmp_path / "a", 4)
    assert replace(job, **change).fingerprint != job.fingerprint
    assert replace(job, out=tmp_path / "b", resume=True).fingerprint == job.fingerprint
    assert tiny_job(tiny_corpora, base_gguf, tmp_path, 5).fingerprint != job.fingerprint


def test_only_the_last_layers_are_adapted_where_the_recipe_says_so(small_model):
    base = small_model.unload()
    hyper = load_recipe("shell").small.model_copy(update={"layers": 1})
    adapted = trainer.add_adapter(base, hyper)
    names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert names
    assert all(".layers.1." in name for name in names)


def test_a_folder_of_other_files_is_not_replaced(tiny_corpora, base_gguf, tmp_path):
    with pytest.raises(AdapterError, match="holds other files"):
        train_adapter(tiny_job(tiny_corpora, base_gguf, tmp_path, steps=1))


def test_only_one_adapter_is_trained_at_a_time(tmp_path):
    with training_lock(tmp_path, "shell"):
        with (
            pytest.raises(AdapterError, match=r"shell \(process \d+\) is being trained"),
            training_lock(tmp_path, "sql"),
        ):
            pass
        with pytest.raises(AdapterError), training_lock(tmp_path, "sql"):
            pass
    with training_lock(tmp_path, "sql"):
        pass


def test_a_schedule_warms_up_and_falls_or_stays():
    cosine = [learning_rate_share("cosine", step, 20) for step in range(1, 21)]
    assert cosine[:3] == [0.5, 1.0, 1.0]
    assert sorted(cosine[2:], reverse=True) == cosine[2:]
    assert 0 < cosine[-1] < 0.01
    assert learning_rate_share("constant", 1, 20) == 1.0


@given(st.integers(1, 500))
def test_the_curve_always_ends_with_the_last_step(steps):
    measured = curve_steps(steps)
    assert max(measured) == steps
    assert len(measured) <= 3
    assert min(measured) >= 1


def write_chats(folder: Path, name: str, chats: list[object]) -> None:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"messages": messages}) for messages in chats]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")


def chat(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def test_a_folder_of_chats_is_read_with_what_was_said_before(tmp_path):
    write_chats(tmp_path / "mine", "train.jsonl", [chat("a", "b", "c", "d"), chat("e", "f")])
    write_chats(tmp_path / "mine", "valid.jsonl", [chat("g", "h")])
    corpus = read_chat_folder(tmp_path / "mine", "shell")
    first, second = corpus.training
    assert (first.prompt, first.answer) == ("c", "d")
    assert [message.content for message in first.context] == ["a", "b"]
    assert (second.prompt, second.context) == ("e", ())
    assert [row.prompt for row in corpus.held_out] == ["g"]

    write_chats(tmp_path / "mine", "test.jsonl", [chat("i", "j")])
    again = read_chat_folder(tmp_path / "mine", "shell")
    assert [row.prompt for row in again.held_out] == ["i"]
    assert again.sha256 != corpus.sha256


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 isn't a chat"),
        ('{"text": "a"}', "line 1 isn't a chat"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "doesn't end with a user's message"),
        ('{"messages": [{"role": "tool", "content": "a"}]}', "message of 'tool'"),
        ("", "is empty"),
        (json.dumps({"messages": chat("a", " ")}), "empty answer"),
    ],
)
def test_a_wrong_chat_is_refused_with_its_line(line, said, tmp_path):
    write_chats(tmp_path, "valid.jsonl", [chat("a", "b")])
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(AdapterError, match=said):
        read_chat_folder(tmp_path, "shell")


def test_a_folder_without_held_out_chats_is_refused(tmp_path):
    write_chats(tmp_path, "train.jsonl", [chat("a", "b")])
    with pytest.raises(AdapterError, match=r"lacks train\.jsonl, or both"):
        read_chat_folder(tmp_path, "shell")


def test_a_sick_adapter_is_not_kept(tiny_corpora, base_gguf, tmp_path):
    made = Path(shutil.copytree(SHIPPED / "shell", tmp_path / "sick"))
    weights = made / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "lora_B" in name)
    save_file(tensors | {name: np.zeros_like(tensors[name])}, weights)
    job = tiny_job(tiny_corpora, base_gguf, tmp_path / "out", steps=2)
    with pytest.raises(AdapterError, match=r"shell adapter isn't kept: .*zeros"):
        require_healthy(job, made, None)


def test_a_corpus_may_hold_any_sign_and_must_be_utf_8(tmp_path):
    rows = [Row(f"prompt {n}", "one\u2028two", "kiki", f"group {n}") for n in range(40)]
    file = write_rows(tmp_path, rows) / "tiny.jsonl"
    file.write_text(file.read_text().replace("\\u2028", "\u2028"), encoding="utf-8")
    corpus = read_corpus("tiny", folder=tmp_path)
    assert len(corpus.training) + len(corpus.held_out) == 40
    (tmp_path / "tiny.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(AdapterError, match="isn't UTF-8"):
        read_corpus("tiny", folder=tmp_path)
