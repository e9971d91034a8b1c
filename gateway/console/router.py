"""``GET /console``: files that hold nothing of the deployment, so that they need no key."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from gateway.access.origin import is_loopback
from gateway.settings import Settings
from kiki.errors import ConsoleOffError

router = APIRouter(include_in_schema=False)

_FILES = StaticFiles(directory=Path(__file__).with_name("static"), html=True)
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # Text of models and of the memory can't become markup, whatever a script does with it.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
HEADERS = {
    "content-security-policy": "; ".join(_POLICY),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # The files change with the gateway: asked for again each time, sent again when they did.
    "cache-control": "no-cache",
}


@router.get("/console")
async def enter(request: Request) -> Response:
    """The page's own address ends in a slash, which its links are relative to."""
    _check_on(request.app.state.services.settings)
    return RedirectResponse("console/", headers=HEADERS)


@router.api_route("/console/{path:path}", methods=["GET", "HEAD"])
async def file(request: Request, path: str) -> Response:
    """The page, or a file that it names."""
    _check_on(request.app.state.services.settings)
    response = await _FILES.get_response(path or "index.html", request.scope)
    response.headers.update(HEADERS)
    return response


def _check_on(settings: Settings) -> None:
    """Raises ConsoleOffError where the settings keep the console off."""
    if settings.console is False:
        raise ConsoleOffError("The console is switched off.", fix="Set console = true.")
    if settings.console is None and not is_loopback(settings.host):
        raise ConsoleOffError(
            f"The console is off, since host = {settings.host!r} is not a loopback address.",
            fix="Set console = true.",
        )
