"""Adapters in a folder, before any of them is read: which there are, names, sizes, fingerprints."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from adapters.adapter import Adapter
from adapters.forms import BaseShape, form_of, read_lora
from adapters.forms.folder import CONFIG_FILE
from adapters.lora import Lora
from kiki.errors import AdapterError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"base|micro-kiki|kiki-.*", re.IGNORECASE)
_WEIGHTS = frozenset({".safetensors", ".gguf"})


def adapters_in(path: Path) -> list[Path]:
    """``path`` itself where it is an adapter, else the adapters right below it, by name.

    A folder with an adapter's config counts though its weights are missing, so that it is reported
    and not passed over.
    """
    if is_adapter(path):
        return [path]
    if not path.is_dir():
        return []
    return [child for child in sorted(path.iterdir()) if is_adapter(child)]


def is_adapter(path: Path) -> bool:
    """Whether ``path`` looks like an adapter, a whole one or not."""
    return path.suffix == ".gguf" or form_of(path) is not None or (path / CONFIG_FILE).is_file()


def files_of(path: Path) -> list[Path]:
    """An adapter's own files; folders in it, as checkpoints are kept in, don't count."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    return sorted(file for file in path.iterdir() if file.is_file())


def weight_files(path: Path) -> list[Path]:
    """Those of its files that hold weights."""
    return [file for file in files_of(path) if file.suffix in _WEIGHTS]


def weight_bytes(path: Path) -> int:
    """What an adapter's weights take on disk, in bytes."""
    return sum(file.stat().st_size for file in weight_files(path))


def fingerprint(path: Path) -> str:
    """Changes with the content of the adapter's weights and config, wherever they lie."""
    digest = hashlib.sha256()
    for file in files_of(path):
        if file.suffix in _WEIGHTS or file.name == CONFIG_FILE:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def read_unchanged(adapter: Adapter, base: BaseShape | None = None) -> Lora:
    """The adapter's weights, as they were when it was found fit.

    Raises AdapterError where its files are others by now.
    """
    lora = read_lora(adapter.path, base=base)
    check_unchanged(adapter, adapter.path)
    return lora


def check_unchanged(adapter: Adapter, path: Path) -> None:
    """Raise AdapterError unless what lies at ``path`` is what was found fit."""
    if fingerprint(path) != adapter.fingerprint:
        raise AdapterError(f"{adapter.path} has changed.", fix="It is looked at again.")


def name_of(path: Path) -> str:
    """What an adapter is called: its folder's name, or its file's without the ending."""
    return path.absolute().name if path.is_dir() else path.stem


def check_name(name: str) -> str:
    """``name``, where an adapter may be called so. Raises AdapterError."""
    if not _NAME.fullmatch(name):
        raise AdapterError(
            f"{name!r} can't be an adapter's name.",
            fix="Use letters, digits, dots, dashes and underscores, 64 at most.",
        )
    if _RESERVED.fullmatch(name):
        raise AdapterError(
            f"{name!r} is the name of one of kiki's own models.",
            fix="Call the adapter otherwise than base, micro-kiki or kiki-...",
        )
    return name
