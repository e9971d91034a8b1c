"""What llama.cpp does to a caller who does not take care; see ggml-org/llama.cpp#26207.

When a trap closes upstream its test fails here, and the mitigation may go.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator

import httpx
import pytest

from adapters.engines.base import Delta, GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import LlamaCppEngine
from adapters.mix import BASE, Mix
from kiki.errors import EngineUnavailableError
from tests.contract.shipped import shipped
from tests.waiting import until

PROMPT = "How do I list hidden files?"


@pytest.fixture(scope="module")
async def llamacpp(base_gguf, models_dir):
    cache = models_dir / "adapters"
    engine = LlamaCppEngine(base_gguf, cache_dir=cache, slots=1, context_tokens=512)
    assert await engine.set_adapters(shipped()) == ()
    await engine.start()
    yield engine
    await engine.stop()


async def raw(engine: LlamaCppEngine, lora: list[dict[str, float]] | None) -> dict[str, float]:
    """First-token log-probabilities as llama.cpp gives them, with or without a list of adapters."""
    body = {
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 5,
    }
    if lora is not None:
        body["lora"] = lora
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = (await client.post(engine.url + "/v1/chat/completions", json=body)).json()
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {entry["token"]: entry["logprob"] for entry in top}


async def complete_rest(deltas: AsyncGenerator[Delta, None]) -> list[Delta]:
    return [delta async for delta in deltas]


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    return max(abs(a[token] - b[token]) for token in a.keys() & b.keys())


async def test_a_list_that_is_left_out_hands_over_another_adapters_cache(llamacpp):
    none = [{"id": number, "scale": 0.0} for number in range(len(llamacpp.adapters))]
    full = [{"id": number, "scale": 1.0 if number == 0 else 0.0} for number in range(len(none))]
    base = await raw(llamacpp, none)
    await raw(llamacpp, full)
    assert distance(await raw(llamacpp, None), base) > 0.1
    await raw(llamacpp, full)
    assert distance(await raw(llamacpp, none), base) < 0.02


async def test_llamacpp_takes_an_id_that_does_not_exist_without_a_word(llamacpp):
    none = [{"id": number, "scale": 0.0} for number in range(len(llamacpp.adapters))]
    base = await raw(llamacpp, none)
    unknown = [*none, {"id": 99, "scale": 1.0}]
    assert distance(await raw(llamacpp, unknown), base) < 0.02


async def test_our_requests_always_carry_the_whole_list(llamacpp):
    async def first(mix: Mix) -> dict[str, float]:
        sampling = Sampling(max_tokens=1, temperature=0, top_logprobs=5)
        request = GenerateRequest((Message("user", PROMPT),), mix, sampling)
        return dict((await complete(llamacpp, [request]))[0].logprobs[0].top)

    base = await first(BASE)
    await first(Mix.single(llamacpp.adapters[0]))
    assert distance(await first(BASE), base) < 1e-6


async def test_no_cache_kept_aside_comes_back_under_another_adapter(llamacpp):
    """Fails when the server's RAM cache is on: it keys what it keeps by the text alone."""
    greeting = (Message("user", "Hello."), Message("assistant", "Hi!"))
    question = (*greeting, Message("user", PROMPT + " Be precise and complete." * 20))
    other = (*greeting, Message("user", "Tell me of Toulouse and its bridges. " * 15))

    async def first(messages: tuple[Message, ...], mix: Mix) -> dict[str, float]:
        request = GenerateRequest(messages, mix, Sampling(1, 0.0, top_logprobs=5))
        return dict((await complete(llamacpp, [request]))[0].logprobs[0].top)

    clean = await first(question, BASE)
    await first(other, Mix.single("shell"))
    await first(question, Mix.single("shell"))
    await first(other, BASE)
    again = await first(question, BASE)
    assert max(again, key=lambda token: again[token]) == max(clean, key=lambda token: clean[token])
    assert distance(again, clean) < 0.1


async def test_an_engine_that_is_killed_comes_back_with_its_adapters(llamacpp):
    request = GenerateRequest((Message("user", PROMPT),), Mix.single("shell"), Sampling(4, 0.0))
    before = (await complete(llamacpp, [request]))[0].text
    restarts = llamacpp.restarts
    os.kill(llamacpp.pid, signal.SIGKILL)
    await until(lambda: llamacpp.state != "ready")
    with pytest.raises(EngineUnavailableError) as caught:
        await complete(llamacpp, [request])
    assert caught.value.retry_after >= 1
    await until(lambda: llamacpp.state == "ready")
    assert llamacpp.restarts == restarts + 1
    assert (await complete(llamacpp, [request]))[0].text == before


async def test_a_request_in_flight_fails_clearly_when_the_engine_dies(llamacpp):
    sampling = Sampling(max_tokens=400, temperature=1.0)
    request = GenerateRequest((Message("user", "Write a long story."),), BASE, sampling)
    deltas = llamacpp.generate([request])
    await anext(deltas)
    os.kill(llamacpp.pid, signal.SIGKILL)
    with pytest.raises(EngineUnavailableError):
        await complete_rest(deltas)


async def test_a_model_file_that_is_no_model_is_named(tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 100)
    engine = LlamaCppEngine(file, cache_dir=tmp_path / "cache", start_timeout=60)
    with pytest.raises(EngineUnavailableError, match=r"broken\.gguf"):
        await engine.start()
    await engine.stop()
