"""``GET /health``, ``/health/live``, ``/health/ready`` and ``GET /metrics``."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from adapters.engines.breaker import CIRCUIT_STATES
from gateway.services import Services

router = APIRouter()


@router.get("/health/live")
async def live() -> Response:
    """The process answers; whether its engine does is no reason to restart it."""
    return JSONResponse({"status": "ok"})


@router.get("/health/ready", responses={503: {"description": "Send no requests here now."}})
async def ready(request: Request) -> Response:
    """``ready``, or 503: the engine can't generate a token."""
    services: Services = request.app.state.services
    if await services.probe.ready():
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "unavailable", "engine": services.engine.state}, 503)


@router.get("/health", responses={503: {"description": "The engine can't generate."}})
async def health(request: Request) -> Response:
    """``ok``, ``degraded`` (a store is down; answers go on), or ``unavailable`` with 503."""
    services: Services = request.app.state.services
    memory = await asyncio.to_thread(services.memory_status)
    ready = await services.probe.ready()
    status = "unavailable"
    if ready:
        status = "ok" if memory.state == "ok" else "degraded"
    body: dict[str, Any] = {
        "status": status,
        "components": {
            "engine": {
                "state": services.engine.state,
                "ready": ready,
                "name": services.engine.capabilities.name,
                "model": services.engine.capabilities.model,
                "reason": services.choice.reason,
                "circuits": dict(services.engine.circuits),
            },
            "router": {"state": "ok", "outputs": len(services.table.outputs)},
            "memory": {"state": memory.state},
        },
        "adapters": list(services.engine.adapters),
        "adapters_refused": {r.name: r.reason for r in services.adapter_set.refused},
        "memory": {
            "state": memory.state,
            "episodes": memory.episodes,
            "lag": memory.lag,
            "last_error": memory.last_error,
            "cerebellum": {
                "lag": memory.undecided,
                "last_error": memory.cerebellum_error,
                "decisions": memory.decisions,
            },
        },
        "uptime_s": round(services.uptime, 1),
        "aliases": list(services.models.aliases),
    }
    return JSONResponse(body, status_code=200 if ready else 503)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    services: Services = request.app.state.services
    memory = await asyncio.to_thread(services.memory_status)
    mixes = list(services.engine.places.mixes)
    busy = {name for mix in mixes for name in mix.names}
    services.telemetry.mixes.set(len(mixes))
    services.telemetry.adapters_idle.set(len(set(services.engine.adapters) - busy))
    services.telemetry.memory_lag.set(memory.lag)
    services.telemetry.memory_degraded.set(memory.state != "ok")
    services.telemetry.cerebellum_lag.set(memory.undecided)
    services.telemetry.adapters_served.set(len(services.engine.adapters))
    services.telemetry.adapters_refused.set(len(services.adapter_set.refused))
    services.telemetry.engine_ready.set(services.engine.state == "ready")
    services.telemetry.tasks.set(len(asyncio.all_tasks()))
    for server, state in services.engine.circuits.items():
        services.telemetry.engine_circuit.labels(server).set(CIRCUIT_STATES.index(state))
    return Response(services.telemetry.render(), media_type="text/plain; version=0.0.4")
