"""Every failure becomes OpenAI's error envelope."""

from __future__ import annotations

import logging
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kiki.errors import EngineUnavailableError, KikiError, RequestError

log = logging.getLogger("kiki.gateway")


def envelope(error: KikiError) -> dict[str, object]:
    """The body for an error of ours."""
    param = error.param if isinstance(error, RequestError) else None
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return _body(str(error), kind, param, error.code)


def response(error: KikiError) -> JSONResponse:
    """The whole response, with Retry-After where waiting helps."""
    headers = {}
    if isinstance(error, EngineUnavailableError):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return JSONResponse(envelope(error), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(KikiError, _on_kiki_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_any_error)


async def _on_kiki_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KikiError)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    request.app.state.services.telemetry.rejections.labels(error.code).inc()
    return response(error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        reason = problem.get("ctx", {}).get("error", "")
        message = f"The body is not valid JSON: {reason} at character {problem['loc'][-1]}."
        return _refusal(message, None, "invalid_json")
    param = _param(problem["loc"])
    message = f"{param or 'The body'}: {problem['msg'].removeprefix('Value error, ')}."
    return _refusal(message, param, problem["type"])


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}."
    body = _body(message, "invalid_request_error", None, "not_found")
    if error.status_code != 404:
        body = _body(message, "invalid_request_error", None, "method_not_allowed")
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _on_any_error(request: Request, error: Exception) -> JSONResponse:
    log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    body = _body("An error of kiki's own; its log has the details.", "server_error", None, None)
    return JSONResponse(body, status_code=500)


def _refusal(message: str, param: str | None, code: str) -> JSONResponse:
    return JSONResponse(_body(message, "invalid_request_error", param, code), status_code=400)


def _param(location: tuple[int | str, ...] | list[int | str]) -> str | None:
    """``("body", "messages", 0, "role")`` as the caller would write it: ``messages[0].role``."""
    path = ""
    for part in location[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in ("str", "list[TextPart]", "list[str]"):
            path += f".{part}" if path else part
    return path or None


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
