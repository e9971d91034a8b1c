"""``kiki memory sleep``: one night, at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.memory_desk import at_desk, refused
from kiki.errors import KikiError

if TYPE_CHECKING:
    import httpx


@click.command("sleep")
@click.option("--dry-run", is_flag=True, help="Say what it would do; nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--url", help="Address of the gateway; default: the one in the settings.")
def command(dry_run: bool, as_json: bool, url: str | None) -> None:
    """Tag conflicts, summarise what belongs together, drop what is not needed.

    Of all users. Summaries are made by the model that the setting cerebellum names, else of the
    most central sentences.
    """
    from gateway.cli.progress import counting
    from gateway.sleeping import told

    async def work(client: httpx.AsyncClient) -> dict[str, Any]:
        params = {"dry_run": dry_run}
        night = client.stream("POST", "/v1/admin/memory/sleep", params=params, timeout=None)
        async with night as response:
            if response.status_code != 200:
                await response.aread()
                refused(response)
            async for line in response.aiter_lines():
                one: dict[str, Any] = json.loads(line)
                if one.get("object") != "memory.sleep.progress":
                    return one
                progress("owners", one["done"], one["total"])
        raise KikiError("The gateway ended before the sleep did.", fix="Sleep again: it goes on.")

    with counting() as progress:
        report = at_desk(url, work, asks=True)
    if "error" in report:
        raise KikiError(str(report["error"]["message"]))
    if as_json:
        click.echo(json.dumps(report))
        return
    for one in report["owners"]:
        owner = one["owner"]
        name = f"{owner['tenant']}/{owner['user']}" if owner["user"] else owner["tenant"]
        click.echo(
            f"{name}: {len(one['summarised'])} groups summarised, {len(one['conflicts'])}"
            f" conflicts, {len(one['evicted'])} evicted, {len(one['expired'])} expired,"
            f" {len(one['capped'])} over the cap"
        )
    click.echo(("Nothing was changed. It would be: " if dry_run else "") + told(report) + ".")
