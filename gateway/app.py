"""The FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI

from gateway.api import (
    adapters,
    chat,
    completions,
    embeddings,
    errors,
    health,
    memory,
    models,
    route,
    tokenize,
)
from gateway.api.arrival import ArrivalMiddleware
from gateway.services import Services
from kiki import __version__


def create_app(services: Services) -> FastAPI:
    """The HTTP surface over services that are started; whoever started them stops them."""
    app = FastAPI(
        title="kiki",
        version=__version__,
        description="OpenAI-compatible gateway: one base, many adapters, a memory that lasts.",
    )
    app.state.services = services
    app.add_middleware(ArrivalMiddleware, telemetry=services.telemetry)
    errors.install(app)
    modules = (
        chat,
        completions,
        embeddings,
        tokenize,
        route,
        memory,
        models,
        adapters,
        health,
    )
    for module in modules:
        app.include_router(module.router)
    return app
