"""``kiki memory sleep``: one night, at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gateway.settings import Settings, load_settings

if TYPE_CHECKING:
    from memory import Aeon
    from memory.sleep import SleepReport


@click.command("sleep")
@click.option("--dry-run", is_flag=True, help="Say what it would do; nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(dry_run: bool, as_json: bool) -> None:
    """Tag conflicts, summarise what belongs together, drop what is not needed.

    Stop the gateway first; while it runs, sleep_at sets the time. Summaries are made by the model
    that the setting cerebellum names, else of the most central sentences.
    """
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting
    from gateway.sleeping import told
    from memory import Aeon

    settings = load_settings()
    embedder = load_embedder(settings)
    aeon = Aeon(
        settings.data_dir / "memory",
        embedding_id=embedder.id,
        embed=embedder.embed,
        stores=settings.stores(),
    )
    aeon.open()
    try:
        with counting() as progress:
            report = asyncio.run(
                _sleep(aeon, settings, dry_run, lambda done, total: progress("owners", done, total))
            )
    finally:
        aeon.close()
    if as_json:
        click.echo(json.dumps(asdict(report), default=str))
        return
    for one in report.owners:
        name = f"{one.owner.tenant}/{one.owner.user}" if one.owner.user else one.owner.tenant
        click.echo(
            f"{name}: {len(one.summarised)} groups summarised, {len(one.conflicts)} conflicts,"
            f" {len(one.evicted)} evicted, {len(one.expired)} expired, {len(one.capped)} over the"
            " cap"
        )
    click.echo(("Nothing was changed. It would be: " if dry_run else "") + told(report) + ".")


async def _sleep(
    aeon: Aeon, settings: Settings, dry_run: bool, progress: Callable[[int, int], None]
) -> SleepReport:
    from gateway.asking import asking
    from gateway.sleeping import sleep_settings

    # The engine that serves is not running here, so "engine" leaves the sentences.
    alone = settings.cerebellum == "engine"
    rules = settings.model_copy(update={"cerebellum": "rules"}) if alone else settings
    async with asking(rules, None) as ask:
        return await asyncio.to_thread(
            aeon.knowledge.sleep,
            sleep_settings(settings),
            ask=ask,
            dry_run=dry_run,
            progress=progress,
        )
