"""Adapters in a folder, before any of them is read."""

from __future__ import annotations

from pathlib import Path

from adapters.forms import form_of
from adapters.forms.folder import CONFIG_FILE


def adapters_in(path: Path) -> list[Path]:
    """``path`` itself where it is an adapter, else the adapters right below it, by name.

    A folder with an adapter's config counts though its weights are missing, so that it is reported
    and not passed over.
    """
    if _is_adapter(path):
        return [path]
    if not path.is_dir():
        return []
    return [child for child in sorted(path.iterdir()) if _is_adapter(child)]


def weight_bytes(path: Path) -> int:
    """What an adapter's weights take on disk, in bytes."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def name_of(path: Path) -> str:
    """What an adapter is called: its folder's name, or its file's without the ending."""
    return path.name if path.is_dir() else path.stem


def _is_adapter(path: Path) -> bool:
    return form_of(path) is not None or (path / CONFIG_FILE).is_file()
