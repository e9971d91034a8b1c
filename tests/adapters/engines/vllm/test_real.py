"""With the real vLLM on a CPU: ``make test-vllm``. What any engine keeps is in tests/contract."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.vllm import VllmEngine
from adapters.mix import BASE, Mix
from tests.contract.shipped import shipped
from tests.contract.vllm_engine import config
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif("TEST_VLLM" not in os.environ, reason="starts vLLM: make test-vllm"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

PROMPT = "How do I count the lines of a file?"
FOUR = Mix.of({"shell": 0.4, "python": 0.3, "sql": -0.2, "cpp": 0.25})


@pytest.fixture(scope="module")
async def engine(hf_base, tmp_path_factory) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine(config(hf_base), tmp_path_factory.mktemp("converted"))
    assert await engine.set_adapters(shipped("shell", "python", "sql", "cpp", "spice")) == ()
    await engine.start()
    yield engine
    await engine.stop()


def ask(mix: Mix, tokens: int = 12) -> GenerateRequest:
    return GenerateRequest(
        (Message("user", PROMPT),), mix, Sampling(tokens, temperature=0.0, top_logprobs=5)
    )


async def one(engine: VllmEngine, mix: Mix, tokens: int = 12):
    return (await complete(engine, [ask(mix, tokens)]))[0]


async def test_a_burst_of_twenty_composes_and_loads_once_and_agrees(engine):
    mix = Mix.of({"shell": 0.45, "spice": 0.55})
    composed, loads = engine.store.composed, engine.servers[0].loads
    swaps = []
    engine.swaps.listener = lambda method, seconds: swaps.append(method)
    answers = await asyncio.gather(*(one(engine, mix) for _ in range(20)))
    assert len({answer.text for answer in answers}) == 1
    assert engine.store.composed == composed + 1
    assert engine.servers[0].loads == loads + 1
    assert swaps == ["compose", "load"]


async def test_more_mixes_at_once_than_the_device_has_slots_all_answer_as_alone(engine):
    """The base too: on a CPU, vLLM would give its row the adapter in the last slot."""
    mixes = [BASE] + [Mix.of({"shell": 0.1 * n, "python": 1 - 0.1 * n}) for n in range(1, 7)]
    alone = [(await one(engine, mix)).text for mix in mixes]
    together = await complete(engine, [ask(mix) for mix in mixes])
    assert [answer.text for answer in together] == alone


async def test_a_killed_server_comes_back_and_is_given_its_adapters_again(engine):
    before = (await one(engine, FOUR)).text, (await one(engine, BASE)).text
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.state != "ready")
    await until(lambda: engine.state == "ready", seconds=300)
    assert ((await one(engine, FOUR)).text, (await one(engine, BASE)).text) == before
