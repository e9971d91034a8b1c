"""``GET /v1/adapters`` and ``POST /v1/adapters/refresh``."""

from __future__ import annotations

from fastapi import APIRouter, Request

from adapters.adapter import Adapter, Refusal
from gateway.api.schemas import AdapterChange, AdapterList, ErrorEnvelope, LeftOut, ServedAdapter
from gateway.services import Services

router = APIRouter()


@router.get("/v1/adapters", response_model=AdapterList)
async def list_adapters(request: Request) -> AdapterList:
    """The adapters being served, and those that are left out, each with its reason."""
    adapter_set = _services(request).adapter_set
    return AdapterList(
        data=[_served(adapter) for adapter in adapter_set.serving.values()],
        refused=[_left_out(refusal) for refusal in adapter_set.refused],
    )


@router.post(
    "/v1/adapters/refresh",
    response_model=AdapterChange,
    responses={500: {"model": ErrorEnvelope}, 503: {"model": ErrorEnvelope}},
)
async def refresh(request: Request) -> AdapterChange:
    """Serve what is in the adapters' folder now; requests in flight finish as they began."""
    change = await _services(request).adapter_set.refresh()
    return AdapterChange(
        added=list(change.added),
        removed=list(change.removed),
        changed=list(change.changed),
        refused=[_left_out(refusal) for refusal in change.refused],
    )


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _served(adapter: Adapter) -> ServedAdapter:
    return ServedAdapter(
        id=adapter.name,
        form=adapter.form,
        rank=adapter.rank,
        alpha=adapter.alpha,
        bytes=adapter.bytes,
        base=adapter.base,
        fingerprint=adapter.fingerprint,
    )


def _left_out(refusal: Refusal) -> LeftOut:
    return LeftOut(id=refusal.name, reason=refusal.reason)
