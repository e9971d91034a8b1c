"""The LoRA adapters of a folder: what is there, what is fit to serve, and what isn't and why."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.adapter import Adapter, Refusal
from adapters.forms import form_of, read_lora
from adapters.health import examine
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")

SHIPPED = Path(__file__).parent / "shipped"
CARD = "card.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WEIGHTS = frozenset({".safetensors", ".gguf"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one look at the folder found, both by name."""

    adapters: tuple[Adapter, ...]
    refused: tuple[Refusal, ...]


class Catalog:
    """The adapters of a folder, or the shipped ones.

    An adapter is a folder in mlx, PEFT or GGUF form, or a GGUF file; its name is the folder's or
    the file's. ``base`` is what adapters have to be made for; None leaves that to the engine,
    which compares shapes. Reading is done once for each state of an adapter's files.
    """

    def __init__(self, folder: Path | None, *, base: str | None = None) -> None:
        self.folder = folder or SHIPPED
        self._base = base
        self._read: dict[Path, tuple[str, Adapter | Refusal]] = {}
        self._lock = threading.Lock()

    def scan(self) -> Snapshot:
        """Look at every entry. Raises AdapterError where there is no such folder."""
        with self._lock:
            found: dict[str, list[Adapter | Refusal]] = defaultdict(list)
            for path in self._entries():
                result = self._look_at(path)
                found[result.name].append(result)
            results = [one for name in sorted(found) for one in _unambiguous(found[name])]
        return Snapshot(
            tuple(one for one in results if isinstance(one, Adapter)),
            tuple(one for one in results if isinstance(one, Refusal)),
        )

    def _entries(self) -> Iterator[Path]:
        if not self.folder.is_dir():
            raise AdapterError(
                f"{self.folder}: there is no such folder of adapters.",
                fix="Correct adapters_dir, or unset it to use the shipped ones.",
            )
        for path in sorted(self.folder.iterdir()):
            if not path.name.startswith((".", "_")) and _holds_weights(path):
                yield path

    def _look_at(self, path: Path) -> Adapter | Refusal:
        state = _state(path)
        known = self._read.get(path)
        if known is not None and known[0] == state:
            return known[1]
        try:
            result: Adapter | Refusal = self._adapter(path)
        except AdapterError as error:
            result = Refusal(_name(path), path, str(error))
            log.error("adapter %s is left out: %s", result.name, error)
        self._read[path] = (state, result)
        return result

    def _adapter(self, path: Path) -> Adapter:
        name = _name(path)
        if not _NAME.fullmatch(name):
            raise AdapterError(
                f"{path}: {name!r} can't be an adapter's name.",
                fix="Use letters, digits, dots, dashes and underscores, 64 at most.",
            )
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise AdapterError(
                f"{path} leads out of {self.folder}.",
                fix="Copy the adapter into the folder.",
            )
        form = form_of(path)
        if form is None:
            raise AdapterError(
                f"{path} is no adapter: its weights have no adapter_config.json beside them.",
                fix="Restore it from the adapter's source.",
            )
        lora = read_lora(path)
        findings = examine(lora, base=self._base)
        sick = [finding for finding in findings if finding.level == "sick"]
        for finding in findings:
            if finding.level == "warning":
                log.warning("adapter %s: %s", name, finding.detail)
        if sick:
            raise AdapterError(
                f"{path}: {' '.join(finding.detail for finding in sick)}",
                fix=f"Look closer with: kiki adapters check {path}",
            )
        card = _card(path)
        return Adapter(
            name=name,
            path=path,
            form=form,
            rank=lora.rank,
            alpha=lora.alpha,
            bytes=sum(file.stat().st_size for file in _files(path)),
            base=lora.base,
            fingerprint=_fingerprint(path),
            base_perplexity=card.get("base_perplexity"),
            adapter_perplexity=card.get("adapter_perplexity"),
        )


def _unambiguous(results: list[Adapter | Refusal]) -> list[Adapter | Refusal]:
    """Of two adapters of one name neither is served: which one was meant can't be known."""
    if len(results) == 1:
        return results
    paths = " and ".join(str(one.path) for one in results)
    reason = f"{paths} have the same name. Rename or remove one of them."
    log.error("adapter %s is left out: %s", results[0].name, reason)
    return [Refusal(results[0].name, results[0].path, reason)]


def _name(path: Path) -> str:
    return path.stem if path.suffix == ".gguf" else path.name


def _holds_weights(path: Path) -> bool:
    return any(file.suffix in _WEIGHTS for file in _files(path)) or form_of(path) is not None


def _files(path: Path) -> list[Path]:
    """The adapter's own files; folders in it, as checkpoints are kept in, don't count."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    return sorted(file for file in path.iterdir() if file.is_file())


def _state(path: Path) -> str:
    parts = [path.name]
    for file in _files(path):
        try:
            stat = file.stat()
        except OSError:  # it went while we looked; the next look sees what is there then
            continue
        parts.append(f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}")
    return "|".join(parts)


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        if file.suffix in _WEIGHTS or file.name == "adapter_config.json":
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _card(path: Path) -> dict[str, Any]:
    """What the adapter's own card says of its quality; a card that can't be read says nothing."""
    try:
        card = json.loads((path / CARD).read_bytes())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}
