from __future__ import annotations

from pathlib import Path

import pytest

from gateway.engines import Machine, choose_engine
from gateway.settings import load_settings
from kiki.errors import SettingsError

LAPTOP = Machine(apple_silicon=False, nvidia=False, mlx=False, vllm=False)
MAC = Machine(apple_silicon=True, nvidia=False, mlx=True, vllm=False)
GPU = Machine(apple_silicon=False, nvidia=True, mlx=False, vllm=True)
QWEN = "Qwen/Qwen3.6-35B-A3B"


@pytest.fixture(autouse=True)
def _no_file_of_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KIKI_MODEL", raising=False)
    monkeypatch.delenv("KIKI_ENGINE", raising=False)


@pytest.mark.parametrize(
    ("machine", "model", "engine", "why"),
    [
        (LAPTOP, None, "llamacpp", "no model is set"),
        (MAC, None, "llamacpp", "no model is set"),
        (MAC, QWEN, "mlx", "Apple silicon"),
        (GPU, QWEN, "vllm", "NVIDIA"),
        (MAC, "model.gguf", "llamacpp", "GGUF"),
        (GPU, "model.gguf", "llamacpp", "GGUF"),
    ],
)
def test_auto_takes_what_fits_the_model_and_the_machine(machine, model, engine, why, tmp_path):
    (tmp_path / "model.gguf").touch()
    choice = choose_engine(load_settings(model=model), machine)
    assert choice.engine == engine
    assert why in choice.reason


def test_running_servers_that_are_named_are_used():
    settings = load_settings(vllm_urls=("http://10.0.0.1:8001",))
    assert choose_engine(settings, MAC).engine == "vllm"


def test_an_engine_that_is_named_is_taken_whatever_the_machine():
    choice = choose_engine(load_settings(engine="mlx", model=QWEN), LAPTOP)
    assert (choice.engine, choice.reason) == ("mlx", "engine = mlx")


def test_a_model_that_nothing_here_can_run_is_said_with_the_way_out():
    with pytest.raises(SettingsError, match=r"Qwen/Qwen3\.6-35B-A3B.*no GPU and no MLX.*GGUF"):
        choose_engine(load_settings(model=QWEN), LAPTOP)


def test_a_path_that_is_not_there_is_named_and_a_hub_name_is_not_a_path():
    with pytest.raises(SettingsError, match=r"models/x\.gguf.*no such file"):
        load_settings(model="models/x.gguf")
    assert load_settings(model=QWEN).model_path is None


def test_urls_come_comma_separated_from_the_environment(monkeypatch):
    monkeypatch.setenv("KIKI_VLLM_URLS", "http://a:1/, http://b:2")
    assert load_settings().vllm_urls == ("http://a:1", "http://b:2")
    monkeypatch.setenv("KIKI_VLLM_URLS", "a:1")
    with pytest.raises(SettingsError, match=r"KIKI_VLLM_URLS.*http address"):
        load_settings()


def test_sizes_are_written_as_people_write_them(monkeypatch):
    monkeypatch.setenv("KIKI_METAL_MEMORY_LIMIT", "460GB")
    assert load_settings().metal_memory_limit == 460_000_000_000
    monkeypatch.setenv("KIKI_METAL_MEMORY_LIMIT", "460 apples")
    with pytest.raises(SettingsError, match="KIKI_METAL_MEMORY_LIMIT"):
        load_settings()
