"""``kiki router``: train and evaluate."""

from __future__ import annotations

import click


@click.group("router")
def command() -> None:
    """Train and evaluate the router."""
