"""The FastAPI application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gateway.access.middleware import AccessMiddleware
from gateway.admission.middleware import AdmissionMiddleware
from gateway.api import (
    adapters,
    chat,
    completions,
    embeddings,
    errors,
    health,
    memory,
    models,
    responses,
    route,
    sleep,
    tokenize,
)
from gateway.api.arrival import ArrivalMiddleware
from gateway.api.schemas import ErrorEnvelope
from gateway.console import router as console
from gateway.services import Services
from kiki import __version__

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope} for status in (401, 403, 413, 429, 503, 504)
}


class _App(FastAPI):
    """Its description says that calls carry a key; the key itself is checked before routing."""

    def openapi(self) -> dict[str, Any]:
        described = super().openapi()
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer"}
        described["security"] = [{"key": []}, {}]
        return described


def create_app(services: Services) -> FastAPI:
    """The HTTP surface over services that are started; whoever started them stops them."""
    settings, telemetry = services.settings, services.telemetry
    app = _App(
        title="kiki",
        version=__version__,
        description="OpenAI-compatible gateway: one base, many adapters, a memory that lasts.",
        responses=_REFUSALS,
    )
    app.state.services = services
    # The last one added sees a request first.
    app.add_middleware(
        AdmissionMiddleware, settings=settings, drain=services.drain, telemetry=telemetry
    )
    app.add_middleware(
        AccessMiddleware, keyring=services.keyring, settings=settings, telemetry=telemetry
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(ArrivalMiddleware, telemetry=telemetry)
    errors.install(app)
    modules = (
        chat,
        completions,
        embeddings,
        tokenize,
        responses,
        route,
        memory,
        sleep,
        models,
        adapters,
        health,
        console,
    )
    for module in modules:
        app.include_router(module.router)
    return app
