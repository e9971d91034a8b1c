"""What stands in the way of a start is named, with what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from adapters.engines.mlx import MlxConfig, MlxEngine
from kiki.errors import EngineUnavailableError, RequestError, SettingsError
from tests.adapters.engines.mlx.serving import ask, one, started, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("mlx"), None)


def test_importing_the_engine_does_not_import_mlx():
    code = "import sys, adapters.engines.mlx; print([m for m in sys.modules if 'mlx.core' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_where_mlx_is_not_installed_the_start_says_how_to_get_it(base):
    code = f"""
import asyncio, sys
sys.modules["mlx"] = None
from adapters.engines.mlx import MlxEngine
engine = MlxEngine({str(base)!r})
try:
    asyncio.run(engine.start())
except Exception as error:
    print(type(error).__name__, engine.state, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("EngineUnavailableError down The MLX engine can't be imported")
    assert done.stdout.endswith("Install it: pip install 'kiki-gateway[mlx]'\n")


async def test_a_folder_that_is_not_there_is_named(tmp_path):
    engine = MlxEngine(tmp_path / "nowhere")
    with pytest.raises(EngineUnavailableError, match="nowhere"):
        await engine.start()


async def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    engine = MlxEngine(tmp_path)
    with pytest.raises(EngineUnavailableError, match=f"MLX can't load {tmp_path}"):
        await engine.start()


def with_template(base, out, template: str | None):
    """A copy of the model with another chat template."""
    shutil.copytree(base, out)
    config = json.loads((out / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    if template is not None:
        config["chat_template"] = template
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    return out


async def test_a_model_without_a_chat_template_is_refused(base, tmp_path):
    engine = MlxEngine(with_template(base, tmp_path / "base", None))
    with pytest.raises(EngineUnavailableError, match="no chat template"):
        await engine.start()


async def test_messages_that_the_template_refuses_are_the_callers_mistake(base, tmp_path):
    template = "{% if messages[0].content != 'hi' %}{{ raise_exception('no!') }}{% endif %}hi"
    async with started(with_template(base, tmp_path / "base", template), []) as engine:
        with pytest.raises(RequestError, match=r"refuses these messages: no!"):
            await one(engine, ask())


async def test_a_kv_cache_that_the_model_cannot_have_is_said_at_the_start(base):
    engine = MlxEngine(base, MlxConfig(kv_bits=8, kv_group_size=64))  # its heads are 32 wide
    with pytest.raises(EngineUnavailableError, match=r"could not generate a token.*64"):
        await engine.start()
    assert engine.state == "down"


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(SettingsError, match="kv_bits is 3"):
        MlxConfig(kv_bits=3)
    with pytest.raises(SettingsError, match="slots is 0"):
        MlxConfig(slots=0)


async def test_before_the_start_and_after_the_stop_a_request_is_refused(base):
    engine = MlxEngine(base)
    with pytest.raises(EngineUnavailableError, match="stopped"):
        await one(engine, ask())
    assert not await engine.ready()
    await engine.start()
    assert await engine.ready()
    await engine.stop()
    assert engine.state == "stopped"
    with pytest.raises(EngineUnavailableError, match="stopped"):
        await one(engine, ask())
