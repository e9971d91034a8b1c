from __future__ import annotations

import shutil

import pytest

from adapters.catalog import CONFIG, SHIPPED, WEIGHTS, Catalog
from kiki.errors import AdapterError


def test_the_shipped_adapters_are_the_six_with_their_perplexities(tmp_path):
    adapters = Catalog(None, tmp_path).adapters()
    names = {adapter.name for adapter in adapters}
    assert names == {"shell", "python", "sql", "cpp", "chat-fr", "spice"}
    for adapter in adapters:
        assert adapter.adapter_perplexity
        assert adapter.base_perplexity
        assert adapter.adapter_perplexity < adapter.base_perplexity
        assert (adapter.rank, adapter.alpha) == (16, 16)


def test_conversion_is_done_once(tmp_path, base_gguf):
    catalog = Catalog(None, tmp_path)
    first = catalog.ready(base_gguf)
    times = {name: path.stat().st_mtime_ns for name, path in first.items()}
    assert {name: path.stat().st_mtime_ns for name, path in catalog.ready(base_gguf).items()} == (
        times
    )


def test_a_sick_adapter_is_left_out_and_logged_and_the_others_serve(tmp_path, base_gguf, caplog):
    folder = tmp_path / "adapters"
    shutil.copytree(SHIPPED / "shell", folder / "shell")
    shutil.copytree(SHIPPED / "sql", folder / "torn")
    weights = folder / "torn" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(SHIPPED / "sql", folder / "noconfig")
    (folder / "noconfig" / CONFIG).write_text("{")
    assert set(Catalog(folder, tmp_path).ready(base_gguf)) == {"shell"}
    assert "torn" in caplog.text
    assert "noconfig" in caplog.text


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AdapterError, match="nowhere"):
        Catalog(tmp_path / "nowhere", tmp_path).adapters()
