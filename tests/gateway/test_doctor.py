"""What ``kiki doctor`` finds; the machine is this one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.catalog import SHIPPED
from gateway.doctor import Check, examine
from gateway.settings import load_settings


@pytest.fixture(autouse=True)
def _no_file_of_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def checks(name: str, **settings: object) -> list[Check]:
    return [check for check in examine(load_settings(**settings)) if check.name == name]


def one(name: str, **settings: object) -> Check:
    (check,) = checks(name, **settings)
    return check


def test_it_says_which_engine_auto_takes_and_why():
    check = one("engine")
    assert (check.state, check.detail.partition(":")[0]) == ("ok", "llamacpp")
    assert "no model is set" in check.detail
    check = one("engine", vllm_urls=("http://127.0.0.1:1",), model="Qwen/Qwen3.6-35B-A3B")
    assert check.detail == "vllm: vllm_urls names running servers"


@pytest.fixture
def on_vllm(hf_base: Path, tmp_path: Path) -> dict[str, object]:
    """The small base on vLLM, with room for whatever the shipped adapters take."""
    return {
        "engine": "vllm",
        "model": str(hf_base),
        "adapters_dir": SHIPPED,
        "vllm_work_dir": tmp_path / "not" / "there" / "yet",
        "vllm_dtype": "float32",
    }


def test_a_mix_of_four_that_fits_vllm_is_said_with_the_bytes(on_vllm, tmp_path):
    slots, folder = one("vllm slots", **on_vllm), one("vllm work folder", **on_vllm)
    assert (slots.state, folder.state) == ("ok", "ok")
    assert "has rank 64, a slot 64" in slots.detail
    assert "GB on the device" in slots.detail
    assert str(on_vllm["vllm_work_dir"]) in folder.detail
    assert list(tmp_path.iterdir()) == []  # it looks, and leaves all as it is


def test_a_mix_of_four_that_has_no_room_in_a_slot_is_said_with_the_fix(on_vllm):
    check = one("vllm slots", **on_vllm, vllm_max_lora_rank=32)
    assert check.state == "note"
    assert "has rank 64, a slot only 32" in check.detail
    assert "strongest adapters that fit are served" in check.detail
    assert check.fix == "Set vllm_max_lora_rank = 64."


def test_adapters_that_do_not_fit_even_alone_are_named(on_vllm):
    slots = one("vllm slots", **on_vllm, vllm_max_lora_rank=8)
    assert "python, shell fit not even alone and are left out" in slots.detail
    folder = one("vllm work folder", **on_vllm, vllm_store_memory=1_000_000)
    assert "fit not even alone and are left out" in folder.detail


def test_slots_that_are_small_for_want_of_device_memory_are_said_so(on_vllm):
    check = one("vllm slots", **on_vllm, vllm_lora_memory=30_000_000)
    assert check.state == "note"
    assert "vllm_lora_memory" in (check.fix or "")


def test_a_mix_of_four_that_has_no_room_in_the_work_folder_is_said_with_the_fix(on_vllm):
    check = one("vllm work folder", **on_vllm, vllm_store_memory=20_000_000)
    assert check.state == "note"
    assert "0.03 GB, of only 0.02 GB" in check.detail
    assert check.fix == "Raise vllm_store_memory."


def test_an_adapter_that_vllm_could_not_read_is_named(on_vllm, tmp_path):
    folder = tmp_path / "adapters"
    shutil.copytree(SHIPPED / "shell", folder / "shell")
    shutil.copytree(SHIPPED / "sql", folder / "sql")
    weights = folder / "sql" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    left_out = one("adapter left out", **on_vllm | {"adapters_dir": folder})
    assert "sql" in left_out.detail
    assert "(shell) has rank 16" in one("vllm slots", **on_vllm | {"adapters_dir": folder}).detail


def test_the_other_engines_have_no_slots_to_fit_into():
    assert checks("vllm slots") == checks("vllm work folder") == []
