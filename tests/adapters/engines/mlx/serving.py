"""Engines on a tiny random model of the hybrid architecture, with adapters on every module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from adapters.adapter import Adapter
from adapters.engines.base import Completion, Engine, GenerateRequest, Message, Sampling, complete
from adapters.engines.mlx import MlxConfig, MlxEngine
from adapters.engines.mlx.runner import RunnerStats
from adapters.engines.mlx.shapes import TINY
from adapters.engines.mlx.tiny import random_adapter, random_model, write_model
from adapters.forms import write_lora
from adapters.mix import BASE, Mix
from tests.contract.shipped import adapter_at

CONFIG = MlxConfig(context_tokens=600, kv_group_size=32)
PROMPT = "Say what you see."
HELLO = (Message("user", "Hello."), Message("assistant", "Hi! What is it?"))


def write_base(folder: Path, bits: int | None) -> Path:
    """A model folder that ``mlx_lm.load`` takes."""
    out = folder / f"base-{bits or 32}"
    write_model(out, random_model(seed=3, bits=bits), TINY, bits)
    return out


def make_adapters(folder: Path, *names: str) -> list[Adapter]:
    """Adapters for that model, another one for each name; again the same for the same name."""
    model = _bare()
    made = []
    for name in names:
        lora = random_adapter(model, seed=sum(map(ord, name)), rank=8)
        write_lora(replace(lora, name=name), "mlx", folder / name, force=True)
        made.append(adapter_at(folder / name))
    return made


@cache
def _bare():
    return random_model(seed=3)


@asynccontextmanager
async def started(model: Path, adapters: list[Adapter], **changes) -> AsyncIterator[MlxEngine]:
    """A running engine; ``changes`` are to its config."""
    engine = MlxEngine(model, replace(CONFIG, **changes))
    await engine.set_adapters(adapters)
    await engine.start()
    yield engine
    await engine.stop()


def ask(mix: Mix = BASE, prompt: str = PROMPT, *, before=(), **sampling) -> GenerateRequest:
    """A greedy request, behind the messages ``before``."""
    defaults = {"max_tokens": 12, "temperature": 0.0, "top_logprobs": 5}
    messages = (*before, Message("user", prompt))
    return GenerateRequest(messages, mix, Sampling(**defaults | sampling))


async def one(engine: Engine, request: GenerateRequest) -> Completion:
    return (await complete(engine, [request]))[0]


def stats(engine: MlxEngine) -> RunnerStats:
    """Of an engine that runs."""
    assert engine.stats is not None
    return engine.stats


def tokens(answer: Completion) -> list[str]:
    """The tokens of an answer that was asked for with log-probabilities."""
    assert answer.logprobs
    return [entry.token for entry in answer.logprobs]


def difference(one: Completion, other: Completion) -> float:
    """The largest between the log-probabilities of the tokens that came, which are the same."""
    assert tokens(one) == tokens(other)
    pairs = zip(one.logprobs, other.logprobs, strict=True)
    return max(abs(a.logprob - b.logprob) for a, b in pairs)
