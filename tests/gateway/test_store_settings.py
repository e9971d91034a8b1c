"""The stores that the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, load_settings
from kiki.errors import SettingsError
from memory.remote import Limits

FILE = """
vector_store = "qdrant"
qdrant_url = "https://qdrant.example.net:6333"
qdrant_grpc_port = 6334
graph_store = "neo4j"
neo4j_uri = "neo4j+s://graph.example.net:7687"
neo4j_database = "kiki"
store_read_ms = 250
"""


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv("KIKI_" + name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_stores_are_embedded_unless_said_otherwise() -> None:
    stores = load_settings().stores()
    assert (stores.vector, stores.graph) == ("embedded", "embedded")
    assert stores.limits == Limits()


def test_servers_and_their_secrets_reach_the_stores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kiki.toml").write_text(FILE)
    monkeypatch.setenv("KIKI_QDRANT_API_KEY", "q-secret")
    monkeypatch.setenv("KIKI_NEO4J_PASSWORD", "n-secret")
    settings = load_settings()
    stores = settings.stores()
    assert stores.vector == "qdrant"
    assert stores.qdrant_url == "https://qdrant.example.net:6333"
    assert stores.qdrant_grpc_port == 6334
    assert stores.qdrant_api_key == "q-secret"
    assert stores.graph == "neo4j"
    assert stores.neo4j_uri == "neo4j+s://graph.example.net:7687"
    assert stores.neo4j_password == "n-secret"
    assert stores.limits == Limits(read_s=0.25, write_s=10.0)
    assert "secret" not in repr(stores)
    assert "q-secret" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('neo4j_uri = "http://graph:7474"', "neo4j_uri.*http://graph:7474.*bolt"),
        ('qdrant_url = "qdrant:6333"', "qdrant_url.*qdrant:6333"),
        ('vector_store = "chroma"', "vector_store.*embedded.*qdrant"),
        ("store_read_ms = 1", "store_read_ms.*10"),
    ],
)
def test_a_wrong_store_setting_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "kiki.toml").write_text(line)
    with pytest.raises(SettingsError, match=f"(?s){told}"):
        load_settings()


def test_variables_for_the_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIKI_TEST_QDRANT_URL", "http://127.0.0.1:6333")
    load_settings()
