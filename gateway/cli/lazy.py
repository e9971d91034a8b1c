"""Groups whose commands are imported when they run, so that help is instant."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click


class WrongCallError(click.UsageError):
    """A wrong option or name before the command."""

    exit_code = 64  # EX_USAGE of sysexits.h


class LazyGroup(click.Group):
    """A click group over a table: name -> ("module:attribute", help line).

    A wrong option or name before the command exits with 64 instead of click's 2: whichever
    command was meant may have a 2 of its own, as ``kiki adapters gate``.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _as_wrong_call():
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        with _as_wrong_call():
            return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])


@contextmanager
def _as_wrong_call() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise WrongCallError(error.format_message(), error.ctx) from error
