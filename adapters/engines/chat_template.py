"""What a chat template reads."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_]\w*")


def names(template: str) -> frozenset[str]:
    """Every name that a Jinja template holds: a variable that it reads is one of them."""
    return frozenset(_NAME.findall(template))
