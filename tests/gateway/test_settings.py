from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, load_settings
from kiki.errors import SettingsError


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv("KIKI_" + name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_a_gateway_on_loopback_port_8000():
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(monkeypatch, tmp_path):
    (tmp_path / "kiki.toml").write_text("port = 9000\nrecall_limit = 7\n")
    assert load_settings().port == 9000
    monkeypatch.setenv("KIKI_PORT", "9001")
    assert load_settings().port == 9001
    settings = load_settings(port=9002)
    assert (settings.port, settings.recall_limit) == (9002, 7)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("KIKI_PORT", "abc", ["KIKI_PORT", "'abc'", "integer", "8000"]),
        ("KIKI_PORT", "70000", ["KIKI_PORT", "'70000'", "65535"]),
        ("KIKI_LOG_LEVEL", "loud", ["KIKI_LOG_LEVEL", "'loud'", "debug"]),
        ("KIKI_PROT", "1", ["KIKI_PROT", "Did you mean KIKI_PORT"]),
        ("KIKI_CONFIG", "/nowhere.toml", ["KIKI_CONFIG", "/nowhere.toml"]),
    ],
)
def test_a_wrong_value_names_the_setting_the_value_and_the_fix(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_choice_of_numbers_can_be_made_in_the_environment(monkeypatch):
    monkeypatch.setenv("KIKI_VLLM_MAX_LORA_RANK", "32")
    monkeypatch.setenv("KIKI_KV_BITS", "8")
    settings = load_settings()
    assert (settings.vllm_max_lora_rank, settings.kv_bits) == (32, 8)
    monkeypatch.setenv("KIKI_KV_BITS", "4")
    with pytest.raises(SettingsError, match="KIKI_KV_BITS"):
        load_settings()


def test_an_unknown_key_in_the_file_is_refused_with_the_near_one(tmp_path):
    (tmp_path / "kiki.toml").write_text("recal_limit = 3\n")
    with pytest.raises(SettingsError, match=r"recal_limit .*Did you mean recall_limit"):
        load_settings()


def test_a_file_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "kiki.toml").write_text("port = = 3\n")
    with pytest.raises(SettingsError, match=r"kiki\.toml: not valid TOML"):
        load_settings()


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())
