"""``kiki keys``: who may call the gateway."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from kiki.errors import SettingsError
from kiki.names import near

if TYPE_CHECKING:
    from gateway.access.keys import Key


@click.group("keys")
def command() -> None:
    """Make, list, rotate and revoke API keys. A running gateway follows within a second."""


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    default="chat,route,memory",
    show_default=True,
    help="What it is for: chat, route, memory, metrics, admin, separated by commas.",
)
@click.option("--tenant", help="Whose memory it opens; the default is its own, under its name.")
@click.option("--days", type=click.IntRange(1), help="Days until it expires; the default is never.")
@click.option("--requests-per-minute", type=click.IntRange(1))
@click.option("--tokens-per-minute", type=click.IntRange(1))
@click.option("--concurrent", type=click.IntRange(1), help="Requests at a time.")
@click.option(
    "--environment",
    is_flag=True,
    help="Write nothing: print what goes into KIKI_API_KEYS. It takes scopes alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(
    name: str,
    scope: str,
    tenant: str | None,
    days: int | None,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrent: int | None,
    environment: bool,
    as_json: bool,
) -> None:
    """Make a key called NAME and print it. It can't be shown again."""
    from gateway.access.key_file import change_keys
    from gateway.access.keys import digest_of, line_of, new_secret
    from gateway.settings import load_settings

    settings = load_settings()
    now = _now()
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent": concurrent,
    }
    others = {"tenant": tenant, "expires": now + timedelta(days=days) if days else None, **limits}
    if environment and any(value is not None for value in others.values()):
        raise SettingsError(
            "A key in the environment has scopes and nothing else.",
            fix="Leave --environment out: the keys' file holds tenant, expiry and limits.",
        )
    secret = new_secret(name)
    fields = {
        "name": name,
        "sha256": digest_of(secret),
        "scopes": tuple(part.strip() for part in scope.split(",") if part.strip()),
        "created": now,
        **{field: value for field, value in others.items() if value is not None},
    }
    key = _checked(fields)
    if environment:
        _print_environment(secret, line_of(key), as_json)
        return

    def add(keys: dict[str, Key]) -> Key:
        if name in keys:
            raise SettingsError(_taken(keys[name]), fix=_instead(keys[name]))
        keys[name] = key
        return key

    change_keys(settings.keys_path, add)
    _print_secret(secret, key, as_json)
    if not as_json:
        click.echo(f"Written to {settings.keys_path}; from now on every caller needs a key.")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """Show the keys: names, scopes and limits, never a key itself."""
    from gateway.access.key_file import read_keys
    from gateway.access.keys import key_in
    from gateway.settings import load_settings

    settings = load_settings()
    given = {key.name: key for key in map(key_in, settings.api_keys)}
    rows = [_row(key) for key in (read_keys(settings.keys_path) | given).values()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"There are no keys ({settings.keys_path}). Make one: kiki keys create NAME")
    for row in rows:
        limits = [f"{row[name]} {name.replace('_', ' ')}" for name in _LIMITS if row[name]]
        tenant = f"tenant {row['tenant']}" if row["tenant"] != row["name"] else ""
        parts = [row["state"], ",".join(row["scopes"]), tenant, *limits]
        click.echo(f"{row['name']}: {'; '.join(part for part in parts if part)}")


@command.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """End the key NAME at once. What it made the gateway remember stays, under its name."""
    from gateway.access.key_file import change_keys
    from gateway.settings import load_settings

    file = load_settings().keys_path

    def end(keys: dict[str, Key]) -> Key:
        key = _found(keys, name)
        keys[name] = key.model_copy(update={"revoked": key.revoked or _now()})
        return keys[name]

    change_keys(file, end)
    click.echo(f"{name} is revoked.")


@command.command("rotate")
@click.argument("name")
@click.option(
    "--overlap",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Hours in which the old key still opens.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate(name: str, overlap: int, as_json: bool) -> None:
    """Give NAME a new key and print it; tenant, scopes and limits stay."""
    from gateway.access.key_file import change_keys
    from gateway.access.keys import digest_of, new_secret
    from gateway.settings import load_settings

    secret = new_secret(name)

    def change(keys: dict[str, Key]) -> Key:
        key = _found(keys, name)
        if reason := key.ended(_now()):
            raise SettingsError(f"The key {name} {reason}.", fix=_instead(key))
        old = {
            "previous_sha256": key.sha256 if overlap else None,
            "previous_until": _now() + timedelta(hours=overlap) if overlap else None,
        }
        keys[name] = key.model_copy(update={"sha256": digest_of(secret), **old})
        return keys[name]

    _print_secret(secret, change_keys(load_settings().keys_path, change), as_json)


_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _checked(fields: dict[str, Any]) -> Key:
    from pydantic import ValidationError

    from gateway.access.keys import SCOPES, Key

    try:
        return Key.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["loc"][0] == "scopes":
            reason = f"{problem['input']!r} is no scope"
            raise SettingsError(f"{reason}.", fix=f"There are {', '.join(SCOPES)}.") from error
        raise SettingsError(
            f"{problem['loc'][0]} = {problem['input']!r} is no name.",
            fix="A name has small letters, digits and hyphens, 63 at most.",
        ) from error


def _found(keys: dict[str, Key], name: str) -> Key:
    if name not in keys:
        raise SettingsError(
            f"There is no key {name!r}.{near(name, keys)}", fix="kiki keys list shows them."
        )
    return keys[name]


def _taken(key: Key) -> str:
    reason = key.ended(_now())
    return f"There was a key {key.name}; it {reason}." if reason else f"There is a key {key.name}."


def _instead(key: Key) -> str:
    if key.ended(_now()):
        return (
            "Take another name; add --tenant "
            f"{key.tenant} if its holder is to have the old one's memory."
        )
    return f"Take another name, or renew it: kiki keys rotate {key.name}"


def _row(key: Key) -> dict[str, Any]:
    row = key.model_dump(mode="json", exclude={"sha256", "previous_sha256"})
    return row | {"state": key.ended(_now()) or "valid"}


def _print_secret(secret: str, key: Key, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"key": secret, **_row(key)}))
        return
    click.echo(secret)
    click.echo(f"This is the key {key.name}, for {', '.join(key.scopes)}. It is shown once.")


def _print_environment(secret: str, line: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"key": secret, "environment": line}))
        return
    click.echo(f"The key, for who calls:  {secret}")
    click.echo(f"Its hash, for kiki serve: KIKI_API_KEYS={line}")
