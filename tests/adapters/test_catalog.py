from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from adapters.catalog import SHIPPED, Catalog, Snapshot
from adapters.forms import read_stored
from adapters.lora import Lora
from kiki.errors import AdapterError

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "adapters"
    folder.mkdir()
    return folder


def add(folder: Path, adapter: str, name: str | None = None) -> Path:
    return Path(shutil.copytree(SHIPPED / adapter, folder / (name or adapter)))


def names(snapshot: Snapshot) -> set[str]:
    return {adapter.name for adapter in snapshot.adapters}


def reasons(snapshot: Snapshot) -> dict[str, str]:
    return {refusal.name: refusal.reason for refusal in snapshot.refused}


def test_the_shipped_adapters_are_fit_and_say_how_good_they_are():
    snapshot = Catalog(None, base=SMOLLM).scan()
    assert not snapshot.refused
    assert names(snapshot) == {"shell", "python", "sql", "cpp", "chat-fr", "spice"}
    for adapter in snapshot.adapters:
        assert adapter.adapter_perplexity
        assert adapter.base_perplexity
        assert adapter.adapter_perplexity < adapter.base_perplexity
        assert (adapter.rank, adapter.alpha, adapter.form) == (16, 16, "peft")


def test_each_look_sees_what_came_changed_and_went(folder):
    catalog = Catalog(folder)
    assert names(catalog.scan()) == set()
    shell = add(folder, "shell")
    first = catalog.scan()
    assert names(first) == {"shell"}
    weights = "adapter_model.safetensors"
    shutil.copyfile(SHIPPED / "sql" / weights, shell / weights)
    (changed,) = catalog.scan().adapters
    assert changed.fingerprint != first.adapters[0].fingerprint
    shutil.rmtree(shell)
    assert names(catalog.scan()) == set()


def test_the_same_content_has_the_same_fingerprint_wherever_it_lies(folder):
    add(folder, "shell", "copy")
    (copy,) = Catalog(folder).scan().adapters
    shipped = {adapter.name: adapter for adapter in Catalog(None).scan().adapters}
    assert copy.fingerprint == shipped["shell"].fingerprint


def test_sick_adapters_are_left_out_with_a_reason_each_and_the_others_serve(folder, caplog):
    add(folder, "shell")
    weights = add(folder, "sql", "torn") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (add(folder, "sql", "noconfig") / "adapter_config.json").write_text("{")
    (add(folder, "sql", "bare") / "adapter_config.json").unlink()
    (folder / "gone.gguf").write_bytes(b"GGUF" + bytes(64))
    snapshot = Catalog(folder).scan()
    assert names(snapshot) == {"shell"}
    assert set(reasons(snapshot)) == {"torn", "noconfig", "bare", "gone"}
    for name, reason in reasons(snapshot).items():
        assert name in reason
        assert reason in caplog.text


def test_an_adapter_for_another_base_is_left_out(folder):
    config = add(folder, "shell", "stranger") / "adapter_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"base_model_name_or_path": "Qwen/Qwen3.6-35B-A3B"}))
    assert "Qwen/Qwen3.6-35B-A3B" in reasons(Catalog(folder, base=SMOLLM).scan())["stranger"]
    assert names(Catalog(folder).scan()) == {"stranger"}


def test_two_adapters_of_one_name_are_both_left_out(folder):
    add(folder, "shell")
    add(folder, "sql")
    (folder / "shell.gguf").write_bytes(b"GGUF")
    snapshot = Catalog(folder).scan()
    assert names(snapshot) == {"sql"}
    assert "same name" in reasons(snapshot)["shell"]


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    outside = add(tmp_path, "shell", "outside")
    (folder / "linked").symlink_to(outside)
    assert "leads out of" in reasons(Catalog(folder).scan())["linked"]


def test_a_name_that_could_be_no_model_is_refused(folder):
    add(folder, "shell", "a b")
    assert "can't be an adapter's name" in reasons(Catalog(folder).scan())["a b"]


@pytest.mark.parametrize("name", ["base", "micro-kiki", "kiki-meta-coding", "kiki-niche-sql"])
def test_an_adapter_cannot_take_the_name_of_a_model_of_kikis_own(folder, name):
    add(folder, "shell", name)
    assert "kiki's own models" in reasons(Catalog(folder).scan())[name]


def test_a_change_that_keeps_size_and_times_is_seen(folder):
    weights = add(folder, "shell") / "adapter_model.safetensors"
    catalog = Catalog(folder)
    (before,) = catalog.scan().adapters
    stat = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-2:] = b"\x00\x11"
    with weights.open("r+b") as file:
        file.write(content)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (after,) = catalog.scan().adapters
    assert after.fingerprint != before.fingerprint


def test_an_adapter_that_changes_while_it_is_read_is_looked_at_again(folder, monkeypatch):
    shell = add(folder, "shell")

    def read_and_remove(path: Path) -> Lora:
        lora = read_stored(path)
        (path / "adapter_model.safetensors").unlink()
        return lora

    catalog = Catalog(folder)
    monkeypatch.setattr("adapters.catalog.read_stored", read_and_remove)
    assert "being changed" in reasons(catalog.scan())["shell"]
    monkeypatch.undo()
    shutil.copy(SHIPPED / "shell" / "adapter_model.safetensors", shell)
    assert names(catalog.scan()) == {"shell"}


@pytest.mark.parametrize(
    "card", ["[" * 100_000, '{"base_perplexity": "24.8"}', '{"base_perplexity": NaN}', "[]", "\xff"]
)
def test_a_strange_card_does_not_keep_an_adapter_from_being_served(folder, card):
    (add(folder, "shell") / "card.json").write_text(card, encoding="latin-1")
    (adapter,) = Catalog(folder).scan().adapters
    assert adapter.base_perplexity is None


def test_a_name_that_is_no_text_can_still_be_reported(folder):
    shutil.copytree(SHIPPED / "shell", folder / os.fsdecode(b"caf\xe9"))
    (refusal,) = Catalog(folder).scan().refused
    json.dumps(refusal.reason).encode()
    assert refusal.name == "caf\\xe9"


def test_a_file_larger_than_the_memory_is_left_out_and_the_others_serve(folder):
    add(folder, "shell")
    weights = add(folder, "sql", "huge") / "adapter_model.safetensors"
    os.truncate(weights, 1 << 40)
    snapshot = Catalog(folder).scan()
    assert names(snapshot) == {"shell"}
    assert "huge" in reasons(snapshot)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_gguf_of_another_tool_needs_no_base_to_be_found_fit(folder, architecture):
    writer = gguf.GGUFWriter(folder / "plain.gguf", architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16)
    for half, shape in (("lora_a", (16, 64)), ("lora_b", (64, 16))):
        writer.add_tensor(f"blk.0.attn_q.weight.{half}", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (adapter,) = Catalog(folder).scan().adapters
    assert (adapter.name, adapter.form, adapter.rank) == ("plain", "gguf", 16)


def test_what_is_no_adapter_is_passed_over(folder):
    add(folder, "shell")
    (folder / "README.md").write_text("Notes.")
    (folder / "notes").mkdir()
    (folder / ".shell.partial").mkdir()
    snapshot = Catalog(folder).scan()
    assert (names(snapshot), snapshot.refused) == ({"shell"}, ())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AdapterError, match="nowhere"):
        Catalog(tmp_path / "nowhere").scan()


def test_a_folder_that_goes_while_it_is_read_is_not_taken_for_an_empty_one(folder, monkeypatch):
    add(folder, "shell")
    catalog = Catalog(folder)
    before = catalog.scan()
    look_at = catalog._look_at

    def take_away(path):
        if folder.exists():
            folder.rename(folder.with_name("elsewhere"))
        return look_at(path)

    with monkeypatch.context() as patched:
        patched.setattr(catalog, "_look_at", take_away)
        with pytest.raises(AdapterError, match="taken away while it was read"):
            catalog.scan()
    folder.with_name("elsewhere").rename(folder)
    assert catalog.scan() == before


def test_an_adapter_is_read_once_for_each_state_of_its_files(folder, monkeypatch):
    shell = add(folder, "shell")
    catalog = Catalog(folder)
    catalog.scan()
    monkeypatch.setattr("adapters.catalog.read_stored", lambda path: pytest.fail(f"read {path}"))
    assert names(catalog.scan()) == {"shell"}
    monkeypatch.undo()
    os.utime(shell / "adapter_config.json", ns=(1, 1))
    assert names(catalog.scan()) == {"shell"}
