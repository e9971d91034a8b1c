"""What every engine can do, and the types that go in and come out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from adapters.adapter import Adapter, Refusal
from adapters.engines.breaker import CircuitState
from adapters.engines.swaps import Swaps
from adapters.mix import BASE, Mix

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
EngineState = Literal["stopped", "starting", "ready", "down"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; ``arguments`` are JSON as it wrote them."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; the engine renders it with the model's own chat template.

    An assistant's message may hold ``tool_calls``; a tool's answers the one it names.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; ``parameters`` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, object]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request. ``required``: at least one call; with ``only``, of that one.

    Without ``parallel`` an answer holds one call at most.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    only: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. ``temperature`` 0 is greedy; ``seed`` None is a random one.

    ``logit_bias`` are pairs of a token's id and what is added to its logit. The penalties are
    OpenAI's; whether the prompt's tokens count too is the engine's. ``top_logprobs`` asks for
    ``logprobs``, which alone asks for those of the sampled tokens.
    """

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, object] | None = None
    top_logprobs: int = 0
    logprobs: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One row of a batch: messages for the chat template, or a ``prompt`` that is taken as it is.

    ``variables`` are the template's own, such as ``enable_thinking``. ``amplify`` asks for the
    neurons of the engine's probe to be amplified, where it has one.
    """

    messages: tuple[Message, ...]
    mix: Mix = BASE
    sampling: Sampling = DEFAULT_SAMPLING
    tools: Tools | None = None
    variables: Mapping[str, object] | None = None
    prompt: str | None = None
    amplify: bool = False


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
class CallPiece:
    """A piece of the answer's call number ``index``; only its first has ``id`` and ``name``."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of row ``row``'s answer. The last one of a row carries reason and usage."""

    row: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    calls: tuple[CallPiece, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole row: what is left when all its deltas are put together."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the model's vocabulary; ``text`` holds U+FFFD where it is part of a character."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this engine is, how much it can hold, and what it can't do.

    ``tools`` says that the model's template shows tools and the engine reads calls; where not,
    see ``written_tools``. ``variables`` are the names that the template reads, None where the
    engine doesn't say. ``vocabulary`` is how many tokens it has, None where the engine itself
    refuses those that it hasn't. ``amplifies`` says that it has a probe whose neurons a request
    may have amplified.
    """

    name: str
    model: str
    context_tokens: int
    slots: int
    json_schema: bool = True
    logprobs: bool = True
    tools: bool = False
    variables: frozenset[str] | None = None
    vocabulary: int | None = None
    amplifies: bool = False


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

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        """The circuit breaker of each server that is asked, by its address or name."""
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

    async def tokenize(self, request: GenerateRequest, *, answer: bool = True) -> list[Token]:
        """The tokens of the request's prompt; with ``answer`` up to where the answer begins.

        Raises EngineError or EngineUnavailableError.
        """
        ...


async def complete(engine: Engine, requests: Sequence[GenerateRequest]) -> list[Completion]:
    """Run the rows together and wait for all of them, in the order asked."""
    async with aclosing(engine.generate(requests)) as deltas:
        return await collect(deltas, len(requests))


class Calls:
    """Puts the pieces of an answer's tool calls together."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}

    @property
    def whole(self) -> tuple[ToolCall, ...]:
        return tuple(self._calls.values())

    def add(self, pieces: Iterable[CallPiece]) -> None:
        for piece in pieces:
            call = self._calls.get(piece.index) or ToolCall("", "", "")
            self._calls[piece.index] = ToolCall(
                piece.id or call.id, piece.name or call.name, call.arguments + piece.arguments
            )


async def collect(deltas: AsyncIterator[Delta], rows: int) -> list[Completion]:
    """Put the deltas of ``rows`` rows together."""
    texts = [""] * rows
    logprobs: list[tuple[TokenLogprob, ...]] = [()] * rows
    calls: list[Calls] = [Calls() for _ in range(rows)]
    done: dict[int, Completion] = {}
    async for delta in deltas:
        row = delta.row
        texts[row] += delta.text
        logprobs[row] += delta.logprobs
        calls[row].add(delta.calls)
        if delta.finish_reason is not None:
            usage = delta.usage or Usage()
            done[row] = Completion(
                texts[row], delta.finish_reason, usage, logprobs[row], calls[row].whole
            )
    return [done[row] for row in range(rows)]
