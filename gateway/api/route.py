"""``POST /v1/route``: what a prompt is about, without inference."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from gateway.api.schemas import DomainScore, ErrorEnvelope, RouteAnswer, RouteAnswers, RouteRequest
from gateway.services import Services
from kiki.errors import RequestError

router = APIRouter()

MAX_QUERIES = 256
MAX_CHARACTERS = 1_000_000


@router.post(
    "/v1/route",
    response_model=RouteAnswer | RouteAnswers,
    responses={400: {"model": ErrorEnvelope}},
)
async def route(request: Request, body: RouteRequest) -> RouteAnswer | RouteAnswers:
    """The active domains of one query, or of each of a list."""
    services: Services = request.app.state.services
    queries = [body.query] if isinstance(body.query, str) else body.query
    _check(queries)
    vectors = await asyncio.to_thread(services.embedder.embed, queries)
    answers = []
    for query, vector in zip(queries, vectors, strict=True):
        threshold = body.threshold or services.settings.router_threshold
        decision = services.router.route(vector, threshold=threshold, top_k=body.top_k)
        domains = [DomainScore(name=d.name, score=round(d.score, 6)) for d in decision.active]
        answers.append(RouteAnswer(query=query, domains=domains, fallback=decision.fallback))
    return answers[0] if isinstance(body.query, str) else RouteAnswers(results=answers)


def _check(queries: list[str]) -> None:
    if not queries or len(queries) > MAX_QUERIES:
        raise RequestError(f"query takes one to {MAX_QUERIES} texts.", param="query")
    for number, query in enumerate(queries):
        param = "query" if len(queries) == 1 else f"query[{number}]"
        if not query.strip():
            raise RequestError("A query is empty.", param=param, fix="Ask something.")
        if len(query) > MAX_CHARACTERS:
            raise RequestError(f"A query is over {MAX_CHARACTERS} characters.", param=param)
