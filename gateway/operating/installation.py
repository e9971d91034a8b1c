"""What a service consists of: files to write, commands to run; and its writing and removal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import kiki
from kiki.errors import SettingsError

Command = tuple[str, ...]
Change = Literal["written", "unchanged", "kept", "removed"]
DEPLOY = Path(kiki.__file__).parent.parent / "deploy"


@dataclass(frozen=True, slots=True)
class File:
    """A file of the service; ``yours`` is one that is made once and then the operator's."""

    path: Path
    text: str
    mode: int = 0o644
    yours: bool = False


@dataclass(frozen=True, slots=True)
class Installation:
    """The files of a service in the order of their writing; the commands that prepare, start and
    end it; the folders that it fills and that outlive it."""

    files: tuple[File, ...]
    prepare: tuple[Command, ...]
    start: tuple[Command, ...]
    end: tuple[Command, ...]
    folders: tuple[Path, ...]


def shipped(name: str) -> str:
    """A file below deploy/. Raises SettingsError where this installation came without it."""
    path = DEPLOY / name
    try:
        return path.read_text()
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}.", fix="Install kiki anew: its deploy/ folder is damaged."
        ) from error


def write(files: Sequence[File], root: Path) -> Iterator[tuple[File, Change]]:
    """Write the files below ``root``. Raises SettingsError, naming the file that can't be."""
    for file in files:
        path = below(root, file.path)
        try:
            if file.yours and path.exists():
                yield file, "kept"
                continue
            same = path.is_file() and path.read_text() == file.text
            if not same:
                _replace(path, file)
        except OSError as error:
            raise SettingsError(
                f"{path} can't be written: {error.strerror}.", fix="Run it as root: sudo."
            ) from error
        yield file, "unchanged" if same else "written"


def remove(files: Sequence[File], root: Path) -> Iterator[tuple[File, Change]]:
    """Remove what ``write`` wrote; what became the operator's stays."""
    for file in reversed(files):
        path = below(root, file.path)
        if file.yours:
            if path.exists():
                yield file, "kept"
            continue
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SettingsError(
                f"{path} can't be removed: {error.strerror}.", fix="Run it as root: sudo."
            ) from error
        if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
            path.parent.rmdir()
        yield file, "removed"


def below(root: Path, path: Path) -> Path:
    """An absolute path as it lies below another root."""
    return root / path.relative_to(path.anchor)


def _replace(path: Path, file: File) -> None:
    """At once: a daemon that reads it sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as out:
        out.write(file.text)
        os.fchmod(out.fileno(), file.mode)
    Path(made).replace(path)
