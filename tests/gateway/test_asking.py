"""The cerebellum's model: one of its own in llama.cpp, a URL, or none; and what a user types."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapters.engines.llamacpp import LlamaCppEngine
from gateway.asking import EngineModel, UrlModel, Waiting, asking
from gateway.cli import cli
from gateway.settings import load_settings
from kiki.errors import SettingsError
from memory.cerebellum import Cerebellum


def decide(cerebellum: Cerebellum) -> None:
    """Two decisions; what a model this small says is not the question."""
    assert cerebellum.warm_up(120)
    cerebellum.memorize("Hello! My dog is called Rex.")
    cerebellum.arbitrate("My dog is called Rex.", "Mon chien s'appelle Rex.", 0.4)
    assert cerebellum.counts.get("late", 0) == cerebellum.counts.get("failed", 0) == 0
    assert cerebellum.counts["model"] > 0


async def test_a_gguf_of_its_own_and_its_url_decide(base_gguf: Path) -> None:
    settings = load_settings(cerebellum=str(base_gguf))
    async with asking(settings, None) as ask:
        await asyncio.to_thread(decide, Cerebellum(ask, timeout_s=120))
        assert isinstance(ask, Waiting)
        assert isinstance(ask.model, EngineModel)
        engine = ask.model._engine
        assert isinstance(engine, LlamaCppEngine)
        assert engine._replica is not None
        model = UrlModel(f"{engine._replica.child.url}/v1", setting="cerebellum")
        url = Waiting(model, asyncio.get_running_loop())
        await asyncio.to_thread(decide, Cerebellum(url, timeout_s=120))
        await model.close()


async def test_a_url_that_nobody_answers_leaves_the_rules() -> None:
    async with asking(load_settings(cerebellum="http://127.0.0.1:9/v1"), None) as ask:
        cerebellum = Cerebellum(ask)
        kept = await asyncio.to_thread(cerebellum.memorize, "My dog is called Rex.")
        assert [one.text for one in kept] == ["My dog is called Rex."]
        assert cerebellum.counts == {"failed": 1, "rules": 1}


async def test_rules_need_no_model() -> None:
    async with asking(load_settings(), None) as ask:
        assert ask is None


@pytest.mark.parametrize("named", ["nonsense", "missing.gguf", "ftp://host/v1"])
def test_a_decider_that_there_is_not_is_refused_with_the_fix(named: str) -> None:
    with pytest.raises(SettingsError, match="cerebellum"):
        load_settings(cerebellum=named)


@pytest.mark.parametrize("when", ["3:30", "24:00", "0h", "soon"])
def test_a_time_to_sleep_that_there_is_not_is_refused(when: str) -> None:
    with pytest.raises(SettingsError, match="sleep_at"):
        load_settings(sleep_at=when)


def test_the_cerebellums_table_is_printed_and_as_json() -> None:
    text = CliRunner().invoke(cli, ["memory", "eval"])
    assert text.exit_code == 0, text.output
    assert "memorize by rules" in text.stdout
    assert "held out" in text.stdout
    found = CliRunner().invoke(cli, ["memory", "eval", "--json"])
    table = json.loads(found.stdout)["rules"]
    assert set(table) == {"memorize", "arbitrate", "decided_by"}
    assert {"accuracy", "fp", "fn", "kinds", "latency_ms"} <= set(table["memorize"])


def test_sleep_says_what_it_would_do_and_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path))
    dry = CliRunner().invoke(cli, ["memory", "sleep", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert dry.stdout.startswith("Nothing was changed. It would be: 0 summaries")
    found = CliRunner().invoke(cli, ["memory", "sleep", "--json"])
    assert json.loads(found.stdout) == {
        "object": "memory.sleep.report",
        "dry_run": False,
        "owners": [],
        "summariser": {},
    }
