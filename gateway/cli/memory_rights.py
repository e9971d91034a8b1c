"""``kiki memory list, search, show, edit, delete, export, import, status``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from gateway.cli.memory_desk import at_desk, refused, target

if TYPE_CHECKING:
    import httpx

WIDTH = 76


def call(
    url: str | None, method: str, path: str, *, user: str | None = None, **options: Any
) -> httpx.Response:
    """One request; raises KikiError with what the gateway said."""
    params = {name: value for name, value in options.pop("params", {}).items() if value is not None}
    if user is not None:
        params["user"] = user

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(method, path, params=params, **options)

    response = at_desk(url, work)
    refused(response)
    return response


def _at(id_: str) -> str:
    from urllib.parse import quote

    return f"/v1/memory/{quote(id_, safe='')}"


@click.command("list")
@click.option("--kind", type=click.Choice(["episodes", "facts", "summaries"]), default="episodes")
@click.option("--conflicts", is_flag=True, help="Only facts that another one contradicts.")
@click.option("--conversation", help="Only of this conversation.")
@click.option("--since", help="Only from this time on, for example 2026-05-01.")
@click.option("--until", help="Only from before this time.")
@click.option("--contains", help="Only with this text in it.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--after", help="Go on behind the page that named this.")
@target
def list_(
    kind: str,
    conflicts: bool,
    conversation: str | None,
    since: str | None,
    until: str | None,
    contains: str | None,
    limit: int,
    after: str | None,
    user: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Show what is remembered, the last written first."""
    params = {
        "kind": "facts" if conflicts else kind,
        "conflicts": conflicts or None,
        "conversation": conversation,
        "since": since,
        "until": until,
        "contains": contains,
        "limit": limit,
        "after": after,
    }
    page = call(url, "GET", "/v1/memory", user=user, params=params).json()
    if as_json:
        _print(page)
        return
    for one in page["data"]:
        click.echo(_line(one))
    if not page["data"]:
        click.echo("Nothing is remembered here.", err=True)
    if page["has_more"]:
        click.echo(f"There is more: --after {page['next']}", err=True)


@click.command("search")
@click.argument("question")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@target
def search(question: str, limit: int, user: str | None, url: str | None, as_json: bool) -> None:
    """Show what chat would recall (marked *), and the next best."""
    body = {"q": question, "limit": limit} | ({"user": user} if user else {})
    found = call(url, "POST", "/v1/memory/search", json=body).json()
    if as_json:
        _print(found)
        return
    for note in found["notes"]:
        click.echo(f"* {note['score']:.3f}  {_line(note)}  [{', '.join(note['reasons'])}]")
    for one in found["data"]:
        mark = "*" if one["in_prompt"] else " "
        click.echo(f"{mark} {one['score']:.3f}  {_line(one)}  [{', '.join(one['reasons'])}]")
    if not found["data"]:
        click.echo("Nothing is remembered here.", err=True)


@click.command("show")
@click.argument("id_", metavar="ID")
@target
def show(id_: str, user: str | None, url: str | None, as_json: bool) -> None:
    """Show one episode, fact or summary.

    An episode comes with what was learnt from it.
    """
    one = call(url, "GET", _at(id_), user=user).json()
    if as_json:
        _print(one)
        return
    for name, value in one.items():
        if name in ("facts", "summaries"):
            for made in value:
                click.echo(f"{made['object'].removeprefix('memory.'):<14} {_line(made)}")
        elif value not in (None, "", [], {}):
            click.echo(f"{name:<14} {value if isinstance(value, str) else json.dumps(value)}")


@click.command("edit")
@click.argument("id_", metavar="ID")
@click.option("--text", help="What the user said.")
@click.option("--answer", help="What was answered.")
@target
def edit(
    id_: str,
    text: str | None,
    answer: str | None,
    user: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Put other texts in an episode.

    What was learnt from the old ones is deleted, and the new ones are learnt from.
    """
    if text is None and answer is None:
        raise click.UsageError("Give --text or --answer.")
    body = {
        name: value for name, value in (("text", text), ("answer", answer)) if value is not None
    }
    one = call(url, "PATCH", _at(id_), user=user, json=body).json()
    _print(one) if as_json else click.echo(_line(one))


@click.command("delete")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All that is remembered of the user.")
@click.option("--everyone", is_flag=True, help="With --all: of all users.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@target
def delete(
    ids: tuple[str, ...],
    all_: bool,
    everyone: bool,
    yes: bool,
    user: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Delete by ID, or --all.

    With an episode goes all that was learnt from it.
    """
    if bool(ids) == all_ or (everyone and (not all_ or user is not None)):
        raise click.UsageError("Give either IDs or --all; --everyone goes with --all only.")
    scope = "tenant" if everyone else "user"
    if not yes:
        click.confirm(_warning(ids, scope, user, url), abort=True, err=True)
    if all_:
        params = {"all": True, "confirm": "delete", "scope": scope}
        gone = [call(url, "DELETE", "/v1/memory", user=user, params=params).json()]
    else:
        gone = _delete_each(ids, user, url)
    sums = {name: sum(one[name] for one in gone) for name in _COUNTED}
    followed = all(one["followed"] for one in gone)
    if as_json:
        _print(sums | {"followed": followed})
        return
    said = ", ".join(f"{count} {name}" for name, count in sums.items())
    click.echo(f"Deleted: {said}.")
    if not followed:
        click.echo("A store is down; what it holds is deleted when it is back.", err=True)


_COUNTED = ("episodes", "facts", "summaries", "replies")


def _warning(ids: tuple[str, ...], scope: str, user: str | None, url: str | None) -> str:
    if ids:
        return f"Delete {', '.join(ids)} and all that was learnt from it?"
    held = call(url, "GET", "/v1/memory/status", user=user, params={"scope": scope}).json()
    whose = f"all {held['users']} users" if scope == "tenant" else f"the user {user or ''!r}"
    return f"Delete all {held['episodes']} episodes of {whose}, and what was learnt from them?"


def _delete_each(ids: tuple[str, ...], user: str | None, url: str | None) -> list[dict[str, Any]]:
    params = {"user": user} if user else {}

    async def work(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        gone = []
        for id_ in ids:
            response = await client.delete(_at(id_), params=params)
            refused(response)
            gone.append(response.json())
        return gone

    return at_desk(url, work)


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--everyone", is_flag=True, help="All users, not one.")
@target
def export(file: Path, everyone: bool, user: str | None, url: str | None, as_json: bool) -> None:
    """Write all to FILE as JSON lines; - is stdout."""
    if everyone and user is not None:
        raise click.UsageError("Give either --user or --everyone.")
    params = {"scope": "tenant" if everyone else "user"} | ({"user": user} if user else {})
    count = 0

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal count
        async with client.stream("GET", "/v1/memory/export", params=params) as response:
            if response.status_code != 200:
                await response.aread()
                refused(response)
            with _private(file) as out:
                async for piece in response.aiter_bytes():
                    out.write(piece)
                    count += piece.count(b"\n")

    at_desk(url, work)
    if str(file) != "-":
        said = {"file": str(file), "lines": count}
        _print(said) if as_json else click.echo(f"{count} lines are in {file}.")


def _private(file: Path) -> IO[bytes]:
    """The file for writing, readable by its owner alone; stdout for -."""
    if str(file) == "-":
        return click.open_file("-", "wb")
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@target
def import_(file: Path, user: str | None, url: str | None, as_json: bool) -> None:
    """Keep what an export wrote to FILE.

    What is there already is not doubled.
    """
    told = call(url, "POST", "/v1/memory/import", user=user, content=file.read_bytes()).json()
    if as_json:
        _print(told)
        return
    click.echo(
        f"{told['new']} episodes are new, {told['known']} were there; {told['skipped']} facts and"
        " summaries are learnt anew."
    )


@click.command("status")
@click.option("--everyone", is_flag=True, help="Count all users, not one.")
@target
def status(everyone: bool, user: str | None, url: str | None, as_json: bool) -> None:
    """Say how the memory is and how much it holds."""
    params = {"scope": "tenant" if everyone else "user"}
    told = call(url, "GET", "/v1/memory/status", user=user, params=params).json()
    if as_json:
        _print(told)
        return
    click.echo(
        f"{told['state']}; {told['episodes']} episodes, {told['facts']} facts,"
        f" {told['summaries']} summaries; the stores are {told['lag']} episodes behind"
    )
    if told["last_error"]:
        click.echo(told["last_error"], err=True)


def _line(one: dict[str, Any]) -> str:
    text = " ".join(one["text"].split())
    short = text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
    time = one.get("time") or one.get("valid_from") or ""
    ended = "" if one.get("current", True) else " (superseded)"
    against = "".join(f" (contradicts {id_})" for id_ in one.get("conflicts", ()))
    return f"{one['id']}  {time[:16]}  {short}{ended}{against}"


def _print(told: object) -> None:
    click.echo(json.dumps(told, ensure_ascii=False, indent=2))
