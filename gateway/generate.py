"""The engine as the ``generate`` callable that the negotiator and the anti-bias stage are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, cast, get_args

from adapters.engines.base import (
    Engine,
    GenerateRequest,
    Message,
    Role,
    Sampling,
    complete,
)
from adapters.mix import BASE, Mix
from gateway.thinking import strip_thinking
from gateway.turn import Turn

ReplyT = TypeVar("ReplyT")


class Prompt(Protocol):
    """What both rooms call a prompt."""

    @property
    def messages(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def adapter(self) -> str | None: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def json_schema(self) -> Mapping[str, object] | None: ...
    @property
    def temperature(self) -> float: ...


def generator(
    engine: Engine,
    turn: Turn,
    reply: Callable[[str, int], ReplyT],
    part: str,
    *,
    amplify: bool = False,
) -> Callable[[Sequence[Prompt]], Awaitable[list[ReplyT]]]:
    """A callable that runs prompts together; their tokens are the turn's, spent on ``part``."""

    async def generate(prompts: Sequence[Prompt]) -> list[ReplyT]:
        with turn.waiting():
            rows = [replace(engine_request(prompt), amplify=amplify) for prompt in prompts]
            completions = await complete(engine, rows)
        replies = []
        for completion in completions:
            turn.spend(part, completion.usage)
            tokens = completion.usage.prompt_tokens + completion.usage.completion_tokens
            replies.append(reply(strip_thinking(completion.text), tokens))
        return replies

    return generate


def engine_request(prompt: Prompt) -> GenerateRequest:
    """The row of a batch that a prompt is. Its seed is fixed: votes are to be repeatable."""
    messages = tuple(Message(role(name), content) for name, content in prompt.messages)
    mix = Mix.single(prompt.adapter) if prompt.adapter else BASE
    sampling = Sampling(
        max_tokens=prompt.max_tokens,
        temperature=prompt.temperature,
        seed=0,
        json_schema=prompt.json_schema,
    )
    return GenerateRequest(messages, mix, sampling)


def role(name: str) -> Role:
    """The engine's role of that name."""
    assert name in get_args(Role)
    return cast(Role, name)
