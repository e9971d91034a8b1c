"""How kiki logs: one line an event, to stderr, never a prompt."""

from __future__ import annotations

import logging


def configure_logging(level: str) -> None:
    """Send our loggers, and uvicorn's warnings, to stderr."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kiki").setLevel(level.upper())
    if level == "debug":
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
