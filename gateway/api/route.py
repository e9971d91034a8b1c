"""``POST /v1/route``: what a prompt is about, without inference."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from gateway.api.schemas import (
    ChatMessage,
    DomainScore,
    ErrorEnvelope,
    RouteAnswer,
    RouteAnswers,
    RouteExplanation,
    RouteRequest,
)
from gateway.explaining import explanation
from gateway.services import Services
from kiki.errors import RequestError
from routing.conversation import Limits, Routed, Said

router = APIRouter()

MAX_QUERIES = 256
MAX_CHARACTERS = 1_000_000


@router.post(
    "/v1/route",
    response_model=RouteAnswer | RouteAnswers,
    response_model_exclude_none=True,
    responses={400: {"model": ErrorEnvelope}},
)
async def route(request: Request, body: RouteRequest) -> RouteAnswer | RouteAnswers:
    """The active domains of one query, of each of a list, or of a conversation's last turn."""
    services: Services = request.app.state.services
    limits = Limits(body.threshold, body.top_k)
    if body.query is None and body.messages is None:
        raise RequestError(
            "There is nothing to route.", param="query", fix='Give query ("...") or messages.'
        )
    if body.query is not None and body.messages is not None:
        raise RequestError(
            "Give either query or messages.", param="query", fix="Leave one of them out."
        )
    if body.messages is not None:
        question, before = _conversation(body.messages)
        return await _answer(services, question, before, limits, explain=body.explain)
    if isinstance(body.query, str):
        _check([body.query])
        return await _answer(services, body.query, (), limits, explain=body.explain)
    queries = body.query or []
    _check(queries)
    # All at once, so that the embedder runs them in batches.
    answers = [_answer(services, query, (), limits, explain=body.explain) for query in queries]
    return RouteAnswers(results=await asyncio.gather(*answers))


async def _answer(
    services: Services,
    question: str,
    before: tuple[Said, ...],
    limits: Limits,
    *,
    explain: bool,
) -> RouteAnswer:
    heard = await services.conversations.hear(question, before)
    routed = services.conversations.decide(heard, limits)
    active = routed.decision.active
    return RouteAnswer(
        query=question,
        domains=[DomainScore(name=d.name, score=round(d.score, 6)) for d in active],
        fallback=routed.decision.fallback,
        explain=await asyncio.to_thread(_explain, services, routed) if explain else None,
    )


def _explain(services: Services, routed: Routed) -> RouteExplanation:
    found = explanation(routed, services.conversations.router, services.neighbours())
    return RouteExplanation.model_validate(found)


def _conversation(messages: list[ChatMessage]) -> tuple[str, tuple[Said, ...]]:
    """The last user turn, and what was said before it."""
    asked = [place for place, message in enumerate(messages) if message.role == "user"]
    if not asked:
        raise RequestError("No message has the role user.", param="messages", fix="Add one.")
    question = messages[asked[-1]].text
    if not question.strip():
        param = f"messages[{asked[-1]}].content"
        raise RequestError("The question is empty.", param=param, fix="Ask something.")
    _refuse_half_pairs(question, f"messages[{asked[-1]}].content")
    return question, tuple(Said(said.role, said.text) for said in messages[: asked[-1]])


def _check(queries: list[str]) -> None:
    if not queries or len(queries) > MAX_QUERIES:
        raise RequestError(f"query takes one to {MAX_QUERIES} texts.", param="query")
    for number, query in enumerate(queries):
        param = "query" if len(queries) == 1 else f"query[{number}]"
        if not query.strip():
            raise RequestError("A query is empty.", param=param, fix="Ask something.")
        if len(query) > MAX_CHARACTERS:
            raise RequestError(f"A query is over {MAX_CHARACTERS} characters.", param=param)
        _refuse_half_pairs(query, param)


def _refuse_half_pairs(text: str, param: str) -> None:
    """The answer repeats the question, and no UTF-8 can hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "The text holds half a surrogate pair.", param=param, fix="Send valid Unicode text."
        ) from None
