"""The arms that are requests to kiki: they take the way of an HTTP body, without the HTTP."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from gateway import replies
from gateway.api.arrival import new_id
from gateway.api.asking import ask_of
from gateway.api.chat_schemas import ChatRequest
from gateway.api.schemas import ChatMessage, KikiOptions
from gateway.evaluation.arms import FULL, RAW, Outcome, Said, outcome
from gateway.evaluation.question import Benchmark, Question
from gateway.models import AUTO, BASE_MODEL
from gateway.services import Services
from gateway.turn import Turn
from kiki.errors import EvaluationError, RequestError

REFUSED_IN_KIKI = ("memory", "conversation", "explain")


def kiki_options(fields: dict[str, Any]) -> dict[str, Any]:
    """What ``--kiki`` says, checked. Raises EvaluationError.

    Memory stays off: a question must not be answered by another question's episode.
    """
    for name in REFUSED_IN_KIKI:
        if name in fields:
            raise EvaluationError(
                f"--kiki: {name!r} is set by the evaluation.", fix="Leave it out."
            )
    try:
        KikiOptions(**fields)
    except (ValidationError, TypeError) as error:
        raise EvaluationError(f"--kiki: {error}") from error
    return fields


async def answer(
    arm: str,
    services: Services,
    benchmark: Benchmark,
    question: Question,
    *,
    kiki: dict[str, Any],
    max_tokens: int,
) -> Outcome:
    """raw's or full's outcome, greedy. A request that the gateway refuses answers nothing.

    Raises KikiError where the engine fails.
    """
    began = time.perf_counter()
    body = _body(arm, question, kiki, max_tokens)
    try:
        turn = await _turn(services, body)
    except RequestError as error:
        said = Said("", 0, 0, details={"refused": str(error)})
    else:
        usage = turn.usage
        cut = turn.finish_reason == "length"
        said = Said(turn.answer, usage.prompt_tokens, usage.completion_tokens, cut, _told(turn))
    return await outcome(benchmark, question, said, time.perf_counter() - began)


def _body(arm: str, question: Question, kiki: dict[str, Any], max_tokens: int) -> ChatRequest:
    options = {RAW: KikiOptions(memory=False), FULL: KikiOptions(**kiki, memory=False)}
    return ChatRequest(
        model=BASE_MODEL if arm == RAW else AUTO,
        messages=[ChatMessage(role="user", content=question.prompt)],
        max_tokens=max_tokens,
        temperature=0,
        seed=0,
        raw_mode=arm == RAW,
        kiki=options[arm],
    )


async def _turn(services: Services, body: ChatRequest) -> Turn:
    ask = ask_of(
        body,
        services=services,
        key=None,
        request_id=new_id("eval"),
        received=time.perf_counter(),
    )
    turn = await services.pipeline.prepare(ask)
    async with aclosing(services.pipeline.answer(turn)) as pieces:
        async for _ in pieces:
            pass
    return turn


def _told(turn: Turn) -> dict[str, Any]:
    explained = replies.explanation(turn)
    return {
        "plan": explained["plan"],
        "adapters": explained["adapters"],
        "domains": explained["domains"],
        "candidates": [
            {"adapter": candidate.adapter or "base", "text": candidate.text}
            for candidate in turn.candidates
        ],
        "stages": explained["stages"],
    }
