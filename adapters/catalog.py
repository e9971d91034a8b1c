"""The LoRA adapters of a folder: what is there, what is fit to serve, and what isn't and why."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.adapter import Adapter, Refusal
from adapters.folders import check_name, files_of, fingerprint, is_adapter, name_of, weight_files
from adapters.forms import form_of, read_stored
from adapters.health import examine
from kiki.errors import AdapterError

log = logging.getLogger("kiki.adapters")

SHIPPED = Path(__file__).parent / "shipped"
CARD = "card.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one look at the folder found, both by name."""

    adapters: tuple[Adapter, ...]
    refused: tuple[Refusal, ...]


class Catalog:
    """The adapters of a folder, or the shipped ones.

    An adapter is a folder in mlx or PEFT form, or a GGUF file; its name is the folder's or the
    file's. ``base`` is what adapters have to be made for; None leaves that to the engine, which
    compares shapes. Reading is done once for each state of an adapter's files.
    """

    def __init__(self, folder: Path | None, *, base: str | None = None) -> None:
        self.folder = folder or SHIPPED
        self._base = base
        self._read: dict[Path, tuple[str, Adapter | Refusal]] = {}
        self._lock = threading.Lock()

    def scan(self) -> Snapshot:
        """Look at every entry. Raises AdapterError where the folder can't be read."""
        with self._lock:
            found: dict[str, list[Adapter | Refusal]] = defaultdict(list)
            for path in self._entries():
                result = self._look_at(path)
                found[result.name].append(result)
            if not self.folder.is_dir():  # it went meanwhile, and its adapters seemed to be gone
                raise self._unreadable("it was taken away while it was read")
            results = [one for name in sorted(found) for one in _unambiguous(found[name])]
        return Snapshot(
            tuple(one for one in results if isinstance(one, Adapter)),
            tuple(one for one in results if isinstance(one, Refusal)),
        )

    def _entries(self) -> Iterator[Path]:
        try:
            entries = sorted(self.folder.iterdir())
        except OSError as error:
            raise self._unreadable(str(error.strerror)) from error
        for path in entries:
            if not path.name.startswith((".", "_")) and _counts(path):
                yield path

    def _unreadable(self, reason: str) -> AdapterError:
        return AdapterError(
            f"{self.folder}: this folder of adapters can't be read: {reason}.",
            fix="Correct adapters_dir, or unset it to use the shipped ones.",
        )

    def _look_at(self, path: Path) -> Adapter | Refusal:
        """Whatever is wrong with one entry is its own matter: the others are served."""
        try:
            state = _state(path)
            known = self._read.get(path)
            if known is not None and known[0] == state:
                return known[1]
            result: Adapter | Refusal = self._adapter(path)
            if _state(path) != state:
                raise AdapterError(f"{path} is being changed.", fix="It is looked at again.")
        except (AdapterError, OSError, MemoryError, RecursionError) as error:
            what = error if isinstance(error, AdapterError) else f"{path} can't be read: {error!r}."
            result = Refusal(_printable(name_of(path)), path, _printable(str(what)))
            log.error("adapter %s is left out: %s", result.name, result.reason)
            if not isinstance(error, AdapterError):
                return result
        self._read[path] = (state, result)
        return result

    def _adapter(self, path: Path) -> Adapter:
        name = check_name(name_of(path))
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise AdapterError(
                f"{path} leads out of {self.folder}.",
                fix="Copy the adapter into the folder.",
            )
        form = form_of(path)
        if form is None:
            raise AdapterError(
                f"{path} is no adapter that can be read.",
                fix="It takes adapter_config.json and weights in one folder, or one GGUF file.",
            )
        lora = read_stored(path)
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
            bytes=sum(file.stat().st_size for file in files_of(path)),
            base=lora.base,
            fingerprint=fingerprint(path),
            base_perplexity=_number(card, "base_perplexity"),
            adapter_perplexity=_number(card, "adapter_perplexity"),
        )


def _unambiguous(results: list[Adapter | Refusal]) -> list[Adapter | Refusal]:
    """Of two adapters of one name neither is served: which one was meant can't be known."""
    if len(results) == 1:
        return results
    paths = " and ".join(_printable(str(one.path)) for one in results)
    reason = f"{paths} have the same name. Rename or remove one of them."
    log.error("adapter %s is left out: %s", results[0].name, reason)
    return [Refusal(results[0].name, results[0].path, reason)]


def _counts(path: Path) -> bool:
    """Whether an entry has to be reported: an adapter, a damaged one, or one nobody may read."""
    try:
        return is_adapter(path) or bool(weight_files(path))
    except OSError:
        return True


def _state(path: Path) -> str:
    parts = []
    for file in files_of(path):
        stat = file.stat()
        # ctime, because a copy that keeps the times may have the size of what it replaces.
        parts.append(
            f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"
        )
    return "|".join(parts)


def _printable(text: str) -> str:
    """A name may be bytes that are no text; what goes out as JSON must be."""
    return os.fsencode(text).decode(errors="backslashreplace")


def _card(path: Path) -> dict[str, Any]:
    """What the adapter's own card says of its quality; a card that can't be read says nothing."""
    try:
        card = json.loads((path / CARD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def _number(card: dict[str, Any], key: str) -> float | None:
    value = card.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
