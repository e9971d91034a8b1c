"""What every engine can do, and the types that go in and come out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from adapters.adapter import Adapter, Refusal
from adapters.engines.swaps import Swaps
from adapters.mix import BASE, Mix

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]
EngineState = Literal["stopped", "starting", "ready", "down"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; the engine renders it with the model's own chat template."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. ``temperature`` 0 is greedy; ``seed`` None is a random one."""

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, object] | None = None
    top_logprobs: int = 0


DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One row of a batch."""

    messages: tuple[Message, ...]
    mix: Mix = BASE
    sampling: Sampling = DEFAULT_SAMPLING


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the engine counted them; ``cached_tokens`` is the part of the prompt reused."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token, its log-probability, and the likeliest alternatives at its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of row ``row``'s answer. The last one of a row carries reason and usage."""

    row: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole row: what is left when all its deltas are put together."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this engine is, how much it can hold, and what it can't do."""

    name: str
    model: str
    context_tokens: int
    slots: int
    json_schema: bool = True
    logprobs: bool = True


class Engine(Protocol):
    """A base model with adapters that a request can mix.

    Every engine keeps these promises (``tests/contract``): a base request is the same before and
    after any adapter traffic; a mix is the weighted sum of its adapters; no cache crosses mixes;
    a cancelled row frees its slot.
    """

    swaps: Swaps

    @property
    def state(self) -> EngineState: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that a mix may hold now."""
        ...

    @property
    def last_delta(self) -> float:
        """When a token last came, in seconds of ``time.monotonic``."""
        ...

    async def start(self) -> None:
        """Start and return once a token was generated. Raises EngineUnavailableError."""

    async def stop(self) -> None: ...

    async def set_adapters(self, adapters: Sequence[Adapter]) -> tuple[Refusal, ...]:
        """Serve exactly these from now on; returns those that don't fit the base, with reasons.

        Rows in flight finish with the adapters they began with. A row that asks for one that is
        gone is refused. An adapter whose ``fingerprint`` changed is a new one: nothing cached
        under the old one is used for it. Called before ``start`` too, to name the first ones.
        """

    def fitting(self, mix: Mix) -> Mix:
        """The part of the mix that this engine can hold; the mix itself where all of it fits."""

    async def ready(self) -> bool:
        """Generate one token; False if that fails."""

    def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Delta, None]:
        """Run the rows together; closing the generator cancels them all.

        Raises UnknownAdapterError before anything is sent, PromptTooLongError, EngineError, or
        EngineUnavailableError.
        """


async def complete(engine: Engine, requests: Sequence[GenerateRequest]) -> list[Completion]:
    """Run the rows together and wait for all of them, in the order asked."""
    async with aclosing(engine.generate(requests)) as deltas:
        return await collect(deltas, len(requests))


async def collect(deltas: AsyncIterator[Delta], rows: int) -> list[Completion]:
    """Put the deltas of ``rows`` rows together."""
    texts = [""] * rows
    logprobs: list[tuple[TokenLogprob, ...]] = [()] * rows
    done: dict[int, Completion] = {}
    async for delta in deltas:
        row = delta.row
        texts[row] += delta.text
        logprobs[row] += delta.logprobs
        if delta.finish_reason is not None:
            usage = delta.usage or Usage()
            done[row] = Completion(texts[row], delta.finish_reason, usage, logprobs[row])
    return [done[row] for row in range(rows)]
