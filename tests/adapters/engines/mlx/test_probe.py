"""Probes in files, and requests that are amplified beside those that aren't."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.engines.base import complete
from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.model import load_base
from adapters.engines.mlx.probe import Probe, check_model, fingerprint, read_probe, write_probe
from adapters.engines.mlx.shapes import TINY
from adapters.engines.mlx.tiny import random_model
from kiki.errors import AssetError, EngineUnavailableError
from tests.adapters.engines.mlx.serving import HELLO, ask, difference, one, started, write_base
from tests.adapters.engines.mlx.test_amplifying import ROUTED, SHARED, some, tiny_llama

CLOSE = 1e-3


def probe_of(model: Path) -> Probe:
    """A probe of three tenths of the neurons of one layer."""
    base = load_base(model, MlxConfig())
    marks = {name: some(base.slots.neurons(name)) for name in (SHARED, ROUTED)}
    return Probe(str(model), fingerprint(base.model), marks, 75)


def test_a_probe_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    marks = {SHARED: some((64,)), ROUTED: some((8, 64)), "empty": np.zeros(4, np.bool_)}
    write_probe(tmp_path / "probe.safetensors", Probe("tiny", "abc", marks, 75))
    back = read_probe(tmp_path / "probe.safetensors")
    assert (back.model, back.fingerprint, back.questions) == ("tiny", "abc", 75)
    assert set(back.marks) == {SHARED, ROUTED}
    for name, each in back.marks.items():
        assert np.array_equal(each, marks[name])
    assert back.neurons == sum(int(each.sum()) for each in marks.values())


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_probe_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"other\.safetensors can't be read as a probe"):
        read_probe(path)


def test_quantising_a_model_leaves_its_fingerprint_and_other_sizes_do_not() -> None:
    whole = fingerprint(random_model(seed=3))
    assert fingerprint(random_model(seed=3, bits=4)) == whole
    assert fingerprint(random_model(replace(TINY, expert_hidden=128), seed=3)) != whole
    assert fingerprint(tiny_llama()) != whole


async def test_a_probe_of_another_model_stops_the_start_and_names_both(tmp_path: Path) -> None:
    model = write_base(tmp_path, None)
    probe = replace(probe_of(model), model="some-other-model", fingerprint="0123")
    write_probe(path := tmp_path / "probe.safetensors", probe)
    with pytest.raises(EngineUnavailableError, match="some-other-model") as refused:
        async with started(model, [], probe=path):
            pass
    assert str(model) in str(refused.value)
    assert "kiki antibias probe" in str(refused.value.fix)
    with pytest.raises(AssetError, match="another model"):
        check_model(probe, path, "served", "4567")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model"), None)


@pytest.fixture(scope="module")
def probe(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "probe.safetensors"
    write_probe(path, probe_of(model))
    return path


async def test_only_the_rows_that_ask_for_it_are_amplified(model: Path, probe: Path) -> None:
    plain, loud = ask(), replace(ask(), amplify=True)
    async with started(model, []) as bare:
        assert not bare.capabilities.amplifies
        expected = await one(bare, plain)
        assert (await one(bare, loud)).logprobs == expected.logprobs
    async with started(model, [], probe=probe) as engine:
        assert engine.capabilities.amplifies
        assert (await one(engine, plain)).logprobs == expected.logprobs
        amplified = await one(engine, loud)
        assert amplified.logprobs != expected.logprobs
        first, second = await complete(engine, [plain, loud])
        assert difference(first, expected) < CLOSE
        assert difference(second, amplified) < CLOSE


async def test_a_gain_of_one_is_the_bare_model_bit_for_bit(model: Path, probe: Path) -> None:
    async with started(model, [], probe=probe, probe_gain=1.0) as engine:
        plain = await one(engine, ask())
        assert (await one(engine, replace(ask(), amplify=True))).logprobs == plain.logprobs


async def test_no_cache_crosses_from_amplified_rows_to_others(model: Path, probe: Path) -> None:
    asked = ask(before=HELLO)
    async with started(model, [], probe=probe) as engine:
        fresh = await one(engine, asked)
    async with started(model, [], probe=probe) as engine:
        await one(engine, replace(asked, amplify=True))
        again = await one(engine, asked)
        assert again.logprobs == fresh.logprobs
        assert again.usage.cached_tokens == 0


async def test_rows_of_both_kinds_may_join_at_any_time(model: Path, probe: Path) -> None:
    loud = replace(ask(max_tokens=30), amplify=True)
    async with started(model, [], probe=probe) as engine:
        expected = await one(engine, loud)
        both = await asyncio.gather(
            one(engine, loud), *(one(engine, ask(max_tokens=n)) for n in (3, 11, 20))
        )
        assert difference(both[0], expected) < CLOSE
