"""The file of keys: TOML, one table a key, hashes only, readable by its owner alone."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from gateway.access.keys import Key
from kiki.errors import SettingsError

_HEAD = "# Written by kiki keys. It holds hashes; the keys themselves are kept nowhere.\n"


def read_keys(file: Path) -> dict[str, Key]:
    """The keys by name; none where there is no file.

    Raises SettingsError with the line, or the key and field, that is wrong.
    """
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The keys in {file} can't be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{file}: not valid TOML: {error}.", fix="Correct that line."
        ) from error
    return {name: _key(name, table, file) for name, table in tables.items()}


def _key(name: str, table: object, file: Path) -> Key:
    try:
        return Key.model_validate({"name": name, **(table if isinstance(table, dict) else {})})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join([name, *map(str, problem["loc"])])
        raise SettingsError(
            f"{file}: {where}: {problem['msg'].lower()}.",
            fix="Correct it; kiki keys list reads it.",
        ) from error


def change_keys(file: Path, change: Callable[[dict[str, Key]], Key]) -> Key:
    """Read the keys, change them, write them; two that change at once take turns."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(f"{file}.lock"):
        keys = read_keys(file)
        changed = change(keys)
        _write(file, keys.values())
    return changed


def _write(file: Path, keys: Iterable[Key]) -> None:
    """Replaces the file at once: a gateway that reads it sees the old keys or the new ones."""
    tables = [f"[{key.name}]\n" + "".join(_lines(key)) for key in keys]
    handle, made = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as out:
            out.write("\n".join([_HEAD, *tables]))
            out.flush()
            os.fsync(out.fileno())
        Path(made).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise


def _lines(key: Key) -> Iterator[str]:
    fields: Mapping[str, object] = key.model_dump(exclude={"name"}, exclude_none=True)
    for name, value in fields.items():
        text = value.isoformat() if isinstance(value, datetime) else json.dumps(value)
        yield f"{name} = {text}\n"
