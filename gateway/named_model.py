"""A model that a setting names: the one that serves, a GGUF of its own, or a URL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def is_url(named: str) -> bool:
    return named.startswith(("http://", "https://"))


def check_model(named: str, words: Sequence[str]) -> str:
    """The name as it is used: one of ``words``, an absolute path, or a URL.

    Raises ValueError, in words for a settings message.
    """
    if named in words or is_url(named):
        return named
    path = Path(named).expanduser().absolute()
    if path.suffix != ".gguf":
        raise ValueError(f"it is none of {', '.join(words)}, the path of a .gguf, an http(s) URL")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return str(path)
