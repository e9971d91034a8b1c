"""Where ``kiki memory`` sends its requests: a gateway that runs, or the folder itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.settings import Settings, load_settings
from kiki.errors import EngineUnavailableError, KikiError

if TYPE_CHECKING:
    import httpx

    from gateway.sleeping import Nights
    from gateway.telemetry import Telemetry
    from memory import Aeon
    from routing.embedder import Embedder

Result = TypeVar("Result")
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class FolderServices:
    """What the memory's endpoints need, where no gateway runs."""

    aeon: Aeon
    nights: Nights
    embedder: Embedder
    settings: Settings
    telemetry: Telemetry


def at_desk(
    url: str | None,
    work: Callable[[httpx.AsyncClient], Awaitable[Result]],
    *,
    asks: bool = False,
) -> Result:
    """Do ``work`` with a client for ``/v1/memory``: the gateway at ``url``, else the one that
    holds the memory's folder, else the folder. ``asks``: the model that the setting cerebellum
    names is needed."""
    settings = load_settings()
    if not asks or settings.cerebellum == "engine":
        # The engine that serves is not running over the folder.
        settings = settings.model_copy(update={"cerebellum": "rules"})

    async def run() -> Result:
        async with _client(settings, url) as client:
            return await work(client)

    return asyncio.run(run())


def refused(response: httpx.Response) -> None:
    """Raise what the gateway said, where it is an error."""
    if response.status_code == 200:
        return
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The gateway answered {response.status_code}: {response.text[:200]}"
    raise KikiError(message)


@asynccontextmanager
async def _client(settings: Settings, url: str | None) -> AsyncIterator[httpx.AsyncClient]:
    import httpx

    from memory.lock import owner_of

    holder = owner_of(settings.data_dir / "memory")
    if url is None and holder is None:
        _call_as_the_key(settings)
        async with _folder(settings) as transport:
            base = "http://memory"
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                yield client
        return
    address = (url or f"http://{settings.host}:{settings.port}").rstrip("/").removesuffix("/v1")
    try:
        async with httpx.AsyncClient(
            base_url=address, headers=settings.key_headers, timeout=TIMEOUT_S, trust_env=False
        ) as client:
            yield client
    except (httpx.TransportError, httpx.InvalidURL) as error:
        who = "" if url else f" Process {holder} has the memory open."
        raise EngineUnavailableError(
            f"No gateway answers on {address} ({error}).{who}",
            fix="Give the gateway's address with --url.",
        ) from error


def _call_as_the_key(settings: Settings) -> None:
    """Over the folder too, the key in use says whose memory it is. Raises AccessError for one that
    a gateway would refuse."""
    from gateway.access.keyring import Keyring
    from gateway.access.keys import key_in
    from gateway.access.visit import Caller, Visit, current_visit

    if settings.api_key is not None:
        keyring = Keyring(settings.keys_path, map(key_in, settings.api_keys))
        key = keyring.find(settings.api_key.get_secret_value())
        current_visit.set(Visit("memory", Caller(key.tenant, key)))


@asynccontextmanager
async def _folder(settings: Settings) -> AsyncIterator[Any]:
    """The memory's endpoints over the folder, without a server."""
    import httpx
    from fastapi import FastAPI

    from gateway.api import errors, memory, sleep
    from gateway.asking import asking
    from gateway.assets import load_embedder
    from gateway.cli.progress import pulling
    from gateway.sleeping import sleeping
    from gateway.telemetry import Telemetry
    from memory import Aeon

    with pulling() as progress:
        embedder = load_embedder(settings, progress)
    aeon = Aeon(
        settings.data_dir / "memory",
        embedding_id=embedder.id,
        embed=embedder.embed,
        stores=settings.stores(),
    )
    app = FastAPI()
    errors.install(app)
    app.include_router(memory.router)
    app.include_router(sleep.router)
    unscheduled = settings.model_copy(update={"sleep_at": None})
    await asyncio.to_thread(aeon.open)
    try:
        async with asking(settings, None) as ask, sleeping(aeon, unscheduled, ask) as nights:
            app.state.services = FolderServices(aeon, nights, embedder, settings, Telemetry())
            yield httpx.ASGITransport(app, raise_app_exceptions=False)
    finally:
        await asyncio.to_thread(aeon.close)


def target(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--url", help="Address of the gateway; default: the one in the settings."),
        click.option("--user", help="Whose memory; as the user of a chat request."),
    ):
        command = option(command)
    return command
