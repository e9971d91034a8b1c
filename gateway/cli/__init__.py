"""The command ``kiki``. Commands are imported when they are used, so that help is instant."""

from __future__ import annotations

import importlib
import sys

import click

from kiki import __version__
from kiki.errors import KikiError

# name -> (module, help line); the line stands here so that --help imports nothing.
_COMMANDS = {
    "serve": ("serve", "Start the gateway."),
    "chat": ("chat", "Ask one question, or talk."),
    "route": ("route", "Show which domains a prompt is about; no inference."),
    "adapters": ("adapters", "List, train and convert adapters."),
    "models": ("models", "Pull and list the model files."),
    "router": ("router", "Train and evaluate the router."),
    "antibias": ("antibias", "Train the bias detector."),
    "memory": ("memory", "Look after the memory."),
    "config": ("config", "Print every setting with its value and origin."),
    "doctor": ("doctor", "Check models, stores, ports and versions."),
    "bench": ("bench", "Measure this machine."),
    "completion": ("completion", "Print the shell completion script."),
}


class _Lazy(click.Group):
    """A group whose commands are loaded when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"gateway.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kiki")
def cli() -> None:
    """OpenAI-compatible gateway: one base model, many LoRA adapters, a memory that lasts."""


def main() -> None:
    """Run the command line; an error of ours is one message and exit code 1."""
    try:
        cli(standalone_mode=True)
    except KikiError as error:
        click.echo(f"kiki: {error}", err=True)
        sys.exit(1)
