"""The files of an adapter's folder: found, kept inside it, and their config read with care."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kiki.errors import AdapterError

CONFIG_FILE = "adapter_config.json"
_LARGEST_CONFIG = 1_000_000  # bytes
_LARGEST_RANK = 65_536


def file_in(folder: Path, name: str) -> Path:
    """The path of the file ``name`` in ``folder``.

    Raises AdapterError when it is missing, is no file, or is a link that leads out of the folder.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise AdapterError(f"{path} is missing.", fix="The adapter needs it.") from error
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before 3.13
        raise AdapterError(f"{path} can't be read: {error}.") from error
    if not real.is_relative_to(folder.resolve()):
        raise AdapterError(
            f"{path} is a link to {real}, outside the adapter's folder.",
            fix="Put the file itself into the folder.",
        )
    if not real.is_file():
        raise AdapterError(f"{path} isn't a file.")
    return path


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json`` of ``folder``. Raises AdapterError unless it is a JSON object."""
    path = file_in(folder, CONFIG_FILE)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_CONFIG + 1)
        if len(text) > _LARGEST_CONFIG:
            raise AdapterError(f"{path} is over {_LARGEST_CONFIG} bytes long; no config is.")
        config = json.loads(text)
    except OSError as error:
        raise AdapterError(f"{path} can't be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} isn't JSON: {error}.") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path} isn't a JSON object.")
    return config


def rank_of(value: object, what: str) -> int:
    """``value`` as a LoRA rank. Raises AdapterError unless it is a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST_RANK:
        raise AdapterError(f"{what} is {value!r}; it must be a whole number above 0.")
    return value


def positive(value: object, what: str) -> float:
    """``value`` as a float. Raises AdapterError unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AdapterError(f"{what} is {value!r}; it must be a number above 0.")
    try:
        number = float(value)
    except OverflowError as error:
        raise AdapterError(f"{what} is too large a number.") from error
    if not math.isfinite(number) or number <= 0:
        raise AdapterError(f"{what} is {value!r}; it must be a finite number above 0.")
    return number


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write ``adapter_config.json`` into ``folder``."""
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False)
    (folder / CONFIG_FILE).write_text(text + "\n", "utf-8")
