"""``POST /v1/admin/memory/sleep``: the memory of all tenants sleeps now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from gateway.api.errors import OWN_ERROR, envelope
from gateway.sleeping import Nights
from kiki.errors import KikiError

router = APIRouter()


@router.post("/v1/admin/memory/sleep", response_class=StreamingResponse)
async def sleep(
    request: Request,
    dry_run: Annotated[
        bool, Query(description="Say what it would do; nothing is changed.")
    ] = False,
) -> StreamingResponse:
    """Tag conflicts, summarise what belongs together, drop what is not needed: JSON lines of
    progress, the last one the report, or an error."""
    nights: Nights = request.app.state.services.nights
    return StreamingResponse(_lines(nights, dry_run), media_type="application/jsonl")


async def _lines(nights: Nights, dry_run: bool) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    def progress(done: int, total: int) -> None:
        line = {"object": "memory.sleep.progress", "done": done, "total": total}
        loop.call_soon_threadsafe(told.put_nowait, line)

    async def night() -> None:
        try:
            report = await nights.sleep(dry_run=dry_run, progress=progress)
        except KikiError as error:
            told.put_nowait(envelope(error))
        except Exception:
            told.put_nowait(OWN_ERROR)
            raise
        else:
            told.put_nowait({"object": "memory.sleep.report"} | asdict(report))

    task = asyncio.create_task(night())
    last = False
    while not last:
        line = await told.get()
        last = line.get("object") != "memory.sleep.progress"
        yield json.dumps(line, default=str, ensure_ascii=False) + "\n"
    await task
