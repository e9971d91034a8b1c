"""What every request gets: an id, also when kiki fails."""

from __future__ import annotations

import logging
from dataclasses import replace

import httpx

from gateway.access.visit import current_visit
from gateway.app import create_app


class Broken:
    async def ready(self) -> bool:
        raise ZeroDivisionError


class Ids(logging.Handler):
    """The ids of the requests that lines were logged in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        visit = current_visit.get()
        self.seen.append(visit.request_id if visit else None)


async def test_an_error_of_kikis_own_has_the_requests_id_in_the_answer_and_in_the_log(services):
    app = create_app(replace(services, probe=Broken()))
    ids, log = Ids(), logging.getLogger("kiki.gateway")
    log.addHandler(ids)
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            answer = await client.get("/health/ready")
    finally:
        log.removeHandler(ids)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert ids.seen == [answer.headers["x-request-id"]]
