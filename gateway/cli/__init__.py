"""The command ``kiki``. Commands are imported when they are used, so that help is instant."""

from __future__ import annotations

import sys

import click

from gateway.cli.lazy import LazyGroup
from kiki import __version__
from kiki.errors import KikiError

# The help lines stand here so that --help imports nothing.
_COMMANDS = {
    "serve": ("gateway.cli.serve:command", "Start the gateway."),
    "chat": ("gateway.cli.chat:command", "Ask one question, or talk."),
    "route": ("gateway.cli.route:command", "Show which domains a prompt is about; no inference."),
    "adapters": ("gateway.cli.adapters:command", "List, train and convert adapters."),
    "models": ("gateway.cli.models:command", "Pull and list the model files."),
    "router": ("gateway.cli.router:command", "Train, evaluate and check the router."),
    "eval": ("gateway.cli.eval:command", "Measure the pipeline against its base."),
    "antibias": ("gateway.cli.antibias:command", "Measure the bias detector, probe a model."),
    "memory": ("gateway.cli.memory:command", "Look after the memory."),
    "service": ("gateway.cli.service:command", "Run kiki as a service of this machine."),
    "keys": ("gateway.cli.keys:command", "Make, list, rotate and revoke API keys."),
    "config": ("gateway.cli.config:command", "Print every setting with its value and origin."),
    "doctor": ("gateway.cli.doctor:command", "Check models, stores, ports and versions."),
    "bench": ("gateway.cli.bench:command", "Measure this machine."),
    "completion": ("gateway.cli.completion:command", "Print the shell completion script."),
}


@click.group(
    cls=LazyGroup, table=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="kiki")
def cli() -> None:
    """OpenAI-compatible gateway: one base model, many LoRA adapters, a memory that lasts."""


def main() -> None:
    """Run the command line; an error of ours is one message and exit code 1, of settings 78."""
    try:
        cli(standalone_mode=True)
    except KikiError as error:
        click.echo(f"kiki: {error}", err=True)
        sys.exit(error.exit_code)
