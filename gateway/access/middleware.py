"""Lets a request in, or answers 401 or 403."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.access.keyring import Keyring
from gateway.access.origin import check_local
from gateway.access.scopes import Need, allows, needed
from gateway.access.visit import NO_KEY, Caller, current_visit
from gateway.access_settings import AccessSettings
from gateway.api import errors
from gateway.telemetry import Telemetry
from kiki.errors import ForbiddenError, KikiError

Headers = dict[str, str]


class AccessMiddleware:
    """Puts the caller into the request's visit. Without keys, only this machine may call."""

    def __init__(
        self, app: ASGIApp, keyring: Keyring, settings: AccessSettings, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._settings = settings
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            caller = self._caller(scope)
        except KikiError as error:
            self._telemetry.rejections.labels(error.code).inc()
            await errors.response(error)(scope, receive, send)
            return
        if visit := current_visit.get():
            visit.caller = caller
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        if not self._keyring.required():
            if not self._settings.allow_remote:
                client = scope["client"][0] if scope["client"] else None
                check_local(client, headers, self._settings.cors_origins)
            return NO_KEY
        need = needed(scope["path"])
        if need == "nothing" or (need == "metrics" and self._settings.metrics_public):
            return NO_KEY
        return self._keyed(headers, need)

    def _keyed(self, headers: Headers, need: Need) -> Caller:
        kind, _, secret = headers.get("authorization", "").partition(" ")
        key = self._keyring.find(secret.strip() if kind.lower() == "bearer" else None)
        if not allows(key, need):
            raise ForbiddenError(
                f"The key {key.name} lacks the scope {need}; it has {', '.join(key.scopes)}.",
                fix=f"Make one with: kiki keys create NAME --scope {need}",
            )
        return Caller(key.tenant, key)
