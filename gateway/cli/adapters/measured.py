"""Commands whose exit codes 1 to 3 are verdicts, so that every failure must be another."""

from __future__ import annotations

import traceback
from typing import Any

import click

from kiki.errors import KikiError

NOT_MEASURED = 4
INTERRUPTED = 130  # the shell's code for a command that Ctrl-C ended


class NotMeasuredError(click.UsageError):
    """A wrong call of a MeasuredCommand."""

    exit_code = NOT_MEASURED


class MeasuredCommand(click.Command):
    """Exits with 4 where nothing could be measured: wrong arguments, unusable files."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise NotMeasuredError(error.format_message(), ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise NotMeasuredError(error.format_message(), ctx) from error
        except (KeyboardInterrupt, click.Abort) as error:
            raise click.exceptions.Exit(INTERRUPTED) from error
        except (KikiError, OSError) as error:
            click.echo(f"kiki: {error}", err=True)
            raise click.exceptions.Exit(NOT_MEASURED) from error
        except click.exceptions.Exit:
            raise
        except Exception as error:  # whatever it is, it is no verdict
            traceback.print_exception(error)
            raise click.exceptions.Exit(NOT_MEASURED) from error
