"""``kiki adapters``: everything about the LoRA adapters on disk."""

from __future__ import annotations

import click

from gateway.cli.lazy import LazyGroup

_HERE = "gateway.cli.adapters"
_COMMANDS = {
    "list": (f"{_HERE}.listing:command", "Show the adapters, and those that are left out."),
    "check": (f"{_HERE}.check:command", "Examine adapters: dead, broken, for another base."),
    "angle": (f"{_HERE}.angle:command", "The angle between two adapters, by kind of module."),
    "gate": (f"{_HERE}.gate:command", "May a new adapter join the others? The forgetting gate."),
    "sweep": (f"{_HERE}.sweep:command", "The angles between all adapters of a folder."),
    "convert": (f"{_HERE}.convert:command", "Convert between the mlx, PEFT and GGUF forms."),
    "validate": (f"{_HERE}.validate:command", "Check the training recipes."),
    "import": (f"{_HERE}.import_:command", "Bring in an adapter from a file or the hub."),
    "eval": (f"{_HERE}.eval:command", "Measure an adapter against its base."),
    "train": (f"{_HERE}.train:command", "Train the adapter of a domain by its recipe."),
}


@click.group("adapters", cls=LazyGroup, table=_COMMANDS)
def command() -> None:
    """List, check, convert, train and measure adapters."""
