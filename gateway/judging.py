"""The judges of a divided panel, as the negotiator asks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from adapters.engines.base import Engine
from gateway.asking import AskedModel, opened
from gateway.settings import Settings
from gateway.turn import Turn
from kiki.errors import EngineUnavailableError
from negotiator.prompt import Generate, Prompt, Reply


@dataclass(frozen=True, slots=True)
class Judges:
    """``judge`` None is the model that serves, ``deep_judge`` None is ``judge``."""

    judge: AskedModel | None = None
    deep_judge: AskedModel | None = None
    timeout_s: float = 20.0


@asynccontextmanager
async def judging(settings: Settings, engine: Engine) -> AsyncIterator[Judges]:
    """The judges that the settings name, open."""
    async with AsyncExitStack() as stack:
        judge = deep_judge = None
        if settings.judge != "engine":
            judge = await stack.enter_async_context(opened(settings, "judge", engine))
        if settings.deep_judge is not None:
            deep_judge = await stack.enter_async_context(opened(settings, "deep_judge", engine))
        yield Judges(judge, deep_judge, settings.judge_timeout_ms / 1000)


def asked(model: AskedModel, turn: Turn) -> Generate:
    """A model of its own as a ``generate`` callable. Its tokens aren't the engine's, so they count
    against the budget and not as the turn's usage."""

    async def generate(prompts: Sequence[Prompt]) -> list[Reply]:
        with turn.waiting():
            said = await asyncio.gather(
                *(
                    model.ask(
                        prompt.messages,
                        json_schema=prompt.json_schema,
                        max_tokens=prompt.max_tokens,
                        temperature=prompt.temperature,
                    )
                    for prompt in prompts
                )
            )
        return [Reply(one.text, one.tokens) for one in said]

    return generate


def within(generate: Generate, seconds: float) -> Generate:
    """The same, given up after ``seconds``. Raises EngineUnavailableError."""

    async def generate_within(prompts: Sequence[Prompt]) -> Sequence[Reply]:
        try:
            async with asyncio.timeout(seconds):
                return await generate(prompts)
        except TimeoutError as error:
            raise EngineUnavailableError(
                f"The judge gave no reply within {seconds:g} s.", fix="Raise judge_timeout_ms."
            ) from error

    return generate_within
