from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from gateway.access.key_file import change_keys, read_keys
from gateway.access.keyring import Keyring
from gateway.access.keys import Key, digest_of, key_in, line_of, new_secret
from gateway.settings import load_settings
from kiki.errors import AccessError, SettingsError

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


def made(file, name="anna", **fields) -> str:
    """A new key in the file; its secret."""
    secret = new_secret(name)

    def put(keys: dict[str, Key]) -> Key:
        keys[name] = Key(name=name, sha256=digest_of(secret), **fields)
        return keys[name]

    change_keys(file, put)
    return secret


def test_a_secret_opens_its_own_key_alone(tmp_path):
    file = tmp_path / "keys.toml"
    anna, bob = made(file), made(file, "bob")
    keyring = Keyring(file)
    assert keyring.find(anna).name == "anna"
    assert keyring.find(bob).name == "bob"
    wrong = [None, "", "x", "kiki_anna_", "kiki_bob_" + anna[-64:], anna[:-1], anna + "0", "\xe9"]
    for secret in wrong:
        with pytest.raises(AccessError):
            keyring.find(secret)


def test_the_file_holds_hashes_and_is_its_owners_alone(tmp_path):
    file = tmp_path / "keys.toml"
    secret = made(file, tokens_per_minute=10, expires=NOW + HOUR, scopes=("chat", "admin"))
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = read_keys(file)["anna"]
    assert (kept.tokens_per_minute, kept.expires) == (10, NOW + HOUR)
    assert kept.scopes == ("chat", "admin")


def test_neither_a_key_nor_an_error_shows_a_secret_or_its_hash(tmp_path):
    file = tmp_path / "keys.toml"
    secret = made(file)
    keyring = Keyring(file)
    assert digest_of(secret) not in repr(keyring.find(secret))
    wrong = new_secret("anna")
    with pytest.raises(AccessError) as caught:
        keyring.find(wrong)
    assert wrong not in str(caught.value)
    with pytest.raises(SettingsError) as given:
        key_in(secret)
    assert secret not in str(given.value)


def test_keys_come_change_and_go_without_a_restart(tmp_path):
    file = tmp_path / "keys.toml"
    keyring = Keyring(file)
    assert not keyring.required()
    first = made(file)
    assert keyring.required()
    assert keyring.find(first).name == "anna"
    second = made(file)
    assert keyring.find(second).name == "anna"
    with pytest.raises(AccessError):
        keyring.find(first)
    made(file, revoked=NOW)
    with pytest.raises(AccessError):
        keyring.find(second)


def test_a_file_that_goes_does_not_open_the_gateway(tmp_path):
    file = tmp_path / "keys.toml"
    secret = made(file)
    keyring = Keyring(file)
    file.unlink()
    assert keyring.required()
    with pytest.raises(AccessError):
        keyring.find(secret)


def test_a_broken_file_leaves_the_keys_as_they_were(tmp_path, caplog):
    file = tmp_path / "keys.toml"
    secret = made(file)
    keyring = Keyring(file)
    file.write_text("[anna]\nsha256 = 3\n")
    assert keyring.find(secret).name == "anna"
    assert "anna.sha256" in caplog.text
    with pytest.raises(SettingsError, match=r"anna\.sha256"):
        Keyring(file)


def test_a_file_that_is_made_whole_again_is_read_also_where_its_time_and_size_are_the_same(
    tmp_path,
):
    file = tmp_path / "keys.toml"
    made(file)
    keyring, before = Keyring(file), file.stat()
    bob = made(file, "bob")
    whole = file.read_text()

    def put(text: str) -> None:
        file.write_text(text)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    put("=" * len(whole))
    with pytest.raises(AccessError):
        keyring.find(bob)
    put(whole)
    assert keyring.find(bob).name == "bob"


def test_a_key_ends_when_it_says(tmp_path):
    file = tmp_path / "keys.toml"
    with pytest.raises(AccessError, match="has expired"):
        Keyring(file).find(made(file, expires=NOW - HOUR))
    with pytest.raises(AccessError, match="was revoked"):
        Keyring(file).find(made(file, "bob", revoked=NOW))


def test_a_rotated_key_opens_as_long_as_it_overlaps():
    old, new = new_secret("anna"), new_secret("anna")
    key = Key(
        name="anna",
        sha256=digest_of(new),
        previous_sha256=digest_of(old),
        previous_until=NOW + HOUR,
    )
    assert key.opened_by(old, NOW)
    assert key.opened_by(new, NOW)
    assert not key.opened_by(old, NOW + HOUR)
    assert key.opened_by(new, NOW + 2 * HOUR)


def test_a_key_of_the_environment_is_as_one_of_the_file(tmp_path, monkeypatch):
    secret = new_secret("ops")
    line = line_of(Key(name="ops", sha256=digest_of(secret), scopes=("admin", "metrics")))
    monkeypatch.setenv("KIKI_API_KEYS", line)
    keyring = Keyring.of(load_settings(data_dir=tmp_path))
    assert keyring.required()
    assert keyring.find(secret).scopes == ("admin", "metrics")
    assert keyring.find(secret).tenant == "ops"


def test_other_machines_are_listened_to_only_with_keys_or_on_purpose(tmp_path):
    with pytest.raises(SettingsError, match="kiki keys create"):
        Keyring.of(load_settings(data_dir=tmp_path, host="0.0.0.0"))
    assert not Keyring.of(load_settings(data_dir=tmp_path, host="::1")).required()
    Keyring.of(load_settings(data_dir=tmp_path, host="0.0.0.0", allow_remote=True))
    made(tmp_path / "keys.toml")
    assert Keyring.of(load_settings(data_dir=tmp_path, host="0.0.0.0")).required()
