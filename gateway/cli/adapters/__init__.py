"""``kiki adapters``: everything about the LoRA adapters on disk."""

from __future__ import annotations

import click

from gateway.cli.lazy import LazyGroup

_HERE = "gateway.cli.adapters"
_COMMANDS = {
    "list": (f"{_HERE}.listing:command", "Show the adapters, and those that are left out."),
    "convert": (f"{_HERE}.convert:command", "Convert between the mlx, PEFT and GGUF forms."),
    "validate": (f"{_HERE}.validate:command", "Check the training recipes."),
    "import": (f"{_HERE}.import_:command", "Bring in an adapter from a file or the hub."),
    "train": (f"{_HERE}.train:command", "Train the adapter of a domain by its recipe."),
}


@click.group("adapters", cls=LazyGroup, table=_COMMANDS)
def command() -> None:
    """List, check, convert, train and measure adapters."""
