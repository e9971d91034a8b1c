"""``GET /v1/models`` and ``/v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.api.schemas import ErrorEnvelope, Model, ModelList
from gateway.models import ServedModel
from gateway.services import Services

router = APIRouter()


@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> ModelList:
    """``micro-kiki``, ``base``, and one a loaded adapter."""
    services: Services = request.app.state.services
    return ModelList(data=[_model(served, services) for served in services.models.listed])


@router.get(
    "/v1/models/{model_id}", response_model=Model, responses={404: {"model": ErrorEnvelope}}
)
async def get_model(request: Request, model_id: str) -> Model:
    """One model by its name or alias."""
    services: Services = request.app.state.services
    return _model(services.models.resolve(model_id), services)


def _model(served: ServedModel, services: Services) -> Model:
    kiki: dict[str, Any] = {"kind": served.kind, "base": services.engine.capabilities.model}
    if served.adapter_missing:
        kiki["served_by"] = "base"
    return Model(id=served.id, created=int(services.started_at), kiki=kiki)
