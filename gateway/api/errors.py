"""Every failure becomes OpenAI's error envelope."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from kiki.errors import KikiError, LimitError, RequestError

log = logging.getLogger("kiki.gateway")


def envelope(error: KikiError) -> dict[str, object]:
    """The body for an error of ours."""
    param = error.param if isinstance(error, RequestError) else None
    return _body(str(error), _kind(error), param, error.code)


def _kind(error: KikiError) -> str:
    if isinstance(error, LimitError):
        return error.limited
    return "invalid_request_error" if error.status < 500 else "server_error"


def response(error: KikiError) -> JSONResponse:
    """The whole response, with Retry-After where waiting helps."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1e3))
    elif error.status in (409, 504):
        # openai's clients repeat these, which can't help here.
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="kiki"'
    return JSONResponse(envelope(error), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(KikiError, _on_kiki_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_kiki_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KikiError)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    request.app.state.services.telemetry.rejections.labels(error.code).inc()
    return response(error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = _deepest(error.errors())
    if problem["type"] == "json_invalid":
        reason = problem.get("ctx", {}).get("error", "")
        message = f"The body is not valid JSON: {reason} at character {problem['loc'][-1]}."
        return _refusal(request, message, "body", "invalid_json")
    param = _param(problem["loc"])
    message = f"{param}: {problem['msg'].removeprefix('Value error, ')}."
    return _refusal(request, message, param, problem["type"])


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}."
    code = {
        404: "not_found",
        405: "method_not_allowed",
        413: "request_too_large",
    }.get(error.status_code, "bad_request")
    body = _body(message, "invalid_request_error", None, code)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def log_failure(scope: Scope, error: Exception) -> None:
    """Logs an error that no handler knows, or that came when the answer had begun."""
    log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)


def own_error() -> JSONResponse:
    """The response for it."""
    return JSONResponse(OWN_ERROR, status_code=500)


def _refusal(request: Request, message: str, param: str, code: str) -> JSONResponse:
    request.app.state.services.telemetry.rejections.labels(code).inc()
    return JSONResponse(_body(message, "invalid_request_error", param, code), status_code=400)


def _deepest(problems: Sequence[Any]) -> Any:
    """The first field's problem; where a union gave several, that which read the furthest."""
    first = problems[0]["loc"][:2]
    return max(
        (one for one in problems if one["loc"][:2] == first), key=lambda one: len(one["loc"])
    )


def _param(location: Sequence[int | str]) -> str:
    """``("body", "messages", 0, "role")`` as the caller would write it: ``messages[0].role``."""
    path = ""
    for part in location[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        # A union's members stand in the path too, by their types' names.
        elif part[:1].islower() and part.isidentifier() and part not in ("str", "one", "many"):
            path += f".{part}" if path else part
    return path or "body"


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


OWN_ERROR = _body("An error of kiki's own; its log has the details.", "server_error", None, None)
