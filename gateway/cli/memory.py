"""``kiki memory``: see, correct, take along and end what is remembered; look after the stores."""

from __future__ import annotations

import click

from gateway.cli import memory_rights as rights
from gateway.cli.memory_eval import command as evaluate
from gateway.cli.memory_sleep import command as sleep
from gateway.settings import load_settings


@click.group("memory")
def command() -> None:
    """Look after the memory.

    While a gateway has the folder open, all but rebuild ask it; else they open it.
    """


@command.command("rebuild")
def rebuild() -> None:
    """Make both stores anew from the journal; stop the gateway first."""
    from gateway.assets import load_embedder
    from gateway.cli.progress import counting
    from memory import Aeon

    settings = load_settings()
    embedder = load_embedder(settings)
    aeon = Aeon(
        settings.data_dir / "memory",
        embedding_id=embedder.id,
        embed=embedder.embed,
        stores=settings.stores(),
    )
    with counting() as progress:
        aeon.rebuild(lambda done, total: progress("episodes", done, total))
    click.echo(f"Both stores are made from the journal in {settings.data_dir / 'memory'}.")


for one in (
    rights.list_,
    rights.search,
    rights.show,
    rights.edit,
    rights.delete,
    rights.export,
    rights.import_,
    rights.status,
    evaluate,
    sleep,
):
    command.add_command(one)
