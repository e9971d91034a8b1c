from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from adapters.adapter import Adapter
from adapters.engines.llamacpp.files import UNUSED_DAYS, AdapterFiles
from adapters.folders import fingerprint
from adapters.forms import read_base_shape, read_lora, write_lora
from kiki.errors import AdapterError
from tests.contract.shipped import SHIPPED, as_mlx, copied, damaged, shipped


@pytest.fixture(scope="module")
def shell_gguf(base_gguf, tmp_path_factory):
    out = tmp_path_factory.mktemp("gguf") / "shell.gguf"
    write_lora(read_lora(SHIPPED / "shell"), "gguf", out, base=read_base_shape(base_gguf))
    return out


@pytest.fixture(scope="module")
def files(base_gguf, tmp_path_factory):
    """One for all tests that don't look at its folder: reading the base takes a second."""
    return AdapterFiles(base_gguf, tmp_path_factory.mktemp("cache"))


def as_gguf(path) -> Adapter:
    return replace(shipped("shell")[0], path=path, form="gguf", fingerprint=fingerprint(path))


def tensors(path) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


def test_each_form_becomes_the_same_weights_and_is_made_only_once(base_gguf, tmp_path):
    files = AdapterFiles(base_gguf, tmp_path / "cache")
    peft, _ = files.prepare(shipped("shell"))
    made = peft.files["shell"].stat().st_mtime_ns, peft.files["shell"].stat().st_ino
    mlx, _ = files.prepare([replace(as_mlx("shell", tmp_path), name="other")])
    again, _ = files.prepare(shipped("shell"))
    assert again == peft
    assert again.files["shell"].stat().st_ino == made[1]
    expected, found = tensors(peft.files["shell"]), tensors(mlx.files["other"])
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    for held in (peft, mlx, again):
        held.release()


def test_a_gguf_adapter_is_used_as_it_comes(files, shell_gguf):
    held, refused = files.prepare([as_gguf(shell_gguf)])
    assert refused == ()
    assert held.files["shell"].read_bytes() == shell_gguf.read_bytes()


def test_a_gguf_adapter_that_goes_is_served_from_its_copy(files, shell_gguf, tmp_path):
    mine = tmp_path / "shell.gguf"
    mine.write_bytes(shell_gguf.read_bytes())
    held, _ = files.prepare([as_gguf(mine)])
    mine.write_bytes(b"something else")
    assert held.files["shell"].read_bytes() == shell_gguf.read_bytes()


def test_a_gguf_adapter_replaced_since_it_was_found_fit_is_refused(base_gguf, shell_gguf, tmp_path):
    mine, files = tmp_path / "shell.gguf", AdapterFiles(base_gguf, tmp_path / "cache")
    mine.write_bytes(shell_gguf.read_bytes())
    found = as_gguf(mine)
    mine.write_bytes(shell_gguf.read_bytes()[:-4] + b"\0\0\0\0")
    held, (refusal,) = files.prepare([found])
    assert held.files == {}
    assert f"{mine} has changed" in refusal.reason
    assert list((tmp_path / "cache").glob("*.gguf")) == []
    held, refused = files.prepare([as_gguf(mine)])
    assert (list(held.files), refused) == (["shell"], ())


def lora_file(path, architecture="llama", kind="lora", **halves):
    writer = GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", kind)
    writer.add_float32("adapter.lora.alpha", 16.0)
    for name, shape in halves.items():
        half, layer = name[-1], name.partition("_")[0]
        tensor = f"blk.{layer[1:]}.attn_v.weight.lora_{half}"
        writer.add_tensor(tensor, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FIT = {"v0_a": (4, 576), "v0_b": (192, 4)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "qwen3"}, "is for qwen3; the base model is llama"),
        ({"kind": "control"}, "isn't a LoRA"),
        ({"v0_a": (4, 512)}, "the base's is"),
        ({"v0_b": (192, 8)}, "the base's is"),
        ({"v30_a": (4, 576), "v30_b": (192, 4)}, "blk.30.attn_v.weight, which the base doesn't"),
        ({"v1_a": (4, 576)}, "only one of lora_a and lora_b"),
    ],
)
def test_a_gguf_adapter_that_llamacpp_would_not_load_is_refused_by_name(
    files, tmp_path, changes, reason
):
    path = tmp_path / "odd.gguf"
    lora_file(path, **FIT | changes)
    held, (refusal,) = files.prepare([as_gguf(path)])
    assert held.files == {}
    assert reason in refusal.reason
    assert str(path) in refusal.reason


def test_a_gguf_adapter_that_is_cut_off_is_refused(files, shell_gguf, tmp_path):
    half = tmp_path / "half.gguf"
    half.write_bytes(shell_gguf.read_bytes()[:100_000])
    _, (refusal,) = files.prepare([as_gguf(half)])
    assert "half.gguf" in refusal.reason


def test_what_can_be_read_is_converted_beside_what_can_not(files, tmp_path):
    held, (refusal,) = files.prepare([damaged("sql", tmp_path), *shipped("shell")])
    assert set(held.files) == {"shell"}
    assert (refusal.name, refusal.path) == ("sql", tmp_path / "sql")


def test_an_older_conversion_goes_when_no_engine_uses_it(base_gguf, tmp_path):
    cache = tmp_path / "cache"
    other = AdapterFiles(base_gguf, cache)  # another gateway on the same folder
    old, _ = other.prepare(shipped("shell"))
    changed = [copied("shell", tmp_path, alpha=32)]
    mine, _ = AdapterFiles(base_gguf, cache).prepare(changed)
    assert old.files["shell"].is_file()
    old.release()
    AdapterFiles(base_gguf, cache).prepare(changed)
    assert not old.files["shell"].exists()
    assert mine.files["shell"].is_file()


def test_what_nothing_used_for_a_month_goes_and_younger_files_stay(base_gguf, tmp_path):
    cache = tmp_path / "cache"
    files = AdapterFiles(base_gguf, cache)
    held, _ = files.prepare([*shipped("shell"), *shipped("sql")])
    held.release()
    long_ago = time.time() - (UNUSED_DAYS + 1) * 86_400
    os.utime(held.files["sql"], (long_ago, long_ago))
    files.prepare([])
    assert held.files["shell"].is_file()
    assert not held.files["sql"].exists()


def test_adapters_for_another_base_are_left_alone(base_gguf, tmp_path):
    cache = tmp_path / "cache"
    twin = tmp_path / "twin.gguf"
    twin.symlink_to(base_gguf)
    for_twin, _ = AdapterFiles(twin, cache).prepare(shipped("shell"))
    for_twin.release()
    mine, _ = AdapterFiles(base_gguf, cache).prepare(shipped("shell"))
    assert mine.files != for_twin.files
    assert for_twin.files["shell"].is_file()


def test_a_folder_that_cannot_be_written_is_named_with_the_fix(base_gguf, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterError, match="models_dir"):
        AdapterFiles(base_gguf, tmp_path / "file" / "cache").prepare(shipped("shell"))


def test_the_fingerprint_and_not_the_path_tells_contents_apart(files, shell_gguf, tmp_path):
    mine = tmp_path / "shell.gguf"
    mine.write_bytes(shell_gguf.read_bytes())
    one, _ = files.prepare([as_gguf(mine)])
    mine.write_bytes(shell_gguf.read_bytes() + b"\0")
    two, _ = files.prepare([as_gguf(mine)])
    assert one != two
