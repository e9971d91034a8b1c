"""``kiki adapters``: everything about the LoRA adapters on disk."""

from __future__ import annotations

import click

from gateway.cli.lazy import LazyGroup

_HERE = "gateway.cli.adapters"
_COMMANDS = {
    "list": (f"{_HERE}.listing:command", "Show the adapters, and those that are left out."),
    "convert": (f"{_HERE}.convert:command", "Convert between the mlx, PEFT and GGUF forms."),
    "train": (f"{_HERE}.train:command", "Train the adapter of a domain by its recipe."),
}


@click.group("adapters", cls=LazyGroup, table=_COMMANDS)
def command() -> None:
    """List, check, convert, train and measure adapters."""
